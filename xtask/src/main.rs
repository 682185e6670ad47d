//! Builds the WebAssembly components: `cargo run -p xtask -- component` builds
//! `target/session.wasm`, `bundle` copies it into the library, `middleware` builds those for
//! `wasi:http`, and `oci DIRECTORY` packs the first for OCI registries.
//!
//! This does what cargo cannot: it finds a way to compile to WebAssembly on this machine, turns
//! core modules into components, and composes them.

#[cfg(test)]
mod keyvalue_host;
mod oci;

use std::collections::BTreeMap;
use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use sha2::{Digest as _, Sha256};
use wac_graph::types::Package;
use wac_graph::{CompositionGraph, EncodeOptions};
use wasm_encoder::{ComponentSection as _, CustomSection};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const TARGET: &str = "wasm32-unknown-unknown";

/// sha2 is fast only with SIMD.
const RUSTFLAGS: &str = "-Ctarget-feature=+simd128";

/// A small stack keeps the memory of a session.wasm instance small. It suffices because
/// session.wasm does not parse JSON recursively.
const SMALL_STACK: &str = "-Clink-arg=-zstack-size=65536";

/// The library's copy of session.wasm.
const BUNDLED: &str = "host/session.wasm";

/// The sources of session.wasm. Different compilers build different bytes from them.
const SOURCES: [&str; 3] = ["component/Cargo.toml", "component/src", "wit"];

/// What the other components are compiled from, beside that.
const OTHER_SOURCES: [&str; 6] = [
    "examples/wasi-app",
    "gateways/proxy-wasm",
    "gateways/wasi-http",
    "headers",
    "tests/wasi-app",
    "tests/wasi-store",
];

/// How many compilations are kept.
const KEPT: usize = 8;

/// The custom section of session.wasm that records its sources.
const ORIGIN: &str = "edge-session";

const HANDLER: &str = "wasi:http/handler@0.3.0";

const NO_TOOLCHAIN: &str = "no standard library for wasm32-unknown-unknown was found.
Install it with one of:
  rustup target add wasm32-unknown-unknown
  apt-get install rustc-web rust-web-src        (Debian)
`scripts/setup wasm` tries both.";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    match env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [verb] if verb == "component" => component(),
        [verb] if verb == "bundle" => bundle(),
        [verb] if verb == "compare" => compare(),
        [verb] if verb == "middleware" => middleware(),
        [verb, directory] if verb == "oci" => oci::write(&Target::find()?.root, directory.as_ref()),
        _ => {
            Err("usage: cargo run -p xtask -- component | bundle | compare | middleware | oci DIRECTORY"
                .into())
        }
    }
}

fn component() -> Result<()> {
    let target = Target::find()?;
    let module = target.compile(&["edge-session-component"], SMALL_STACK, &[])?.remove(0);
    let mut component = encode(&module)?;
    // Runtimes ignore custom sections.
    let origin = target.origin()?;
    CustomSection { name: ORIGIN.into(), data: origin.as_bytes().into() }
        .append_to_component(&mut component);
    target.write("session.wasm", &component)
}

/// Copies the component into the library, so that users of the library need no WebAssembly
/// compiler. The copy is checked in, and a test compares it.
fn bundle() -> Result<()> {
    component()?;
    let target = Target::find()?;
    let copy = target.root.join(BUNDLED);
    fs::copy(target.root.join("target/session.wasm"), &copy)?;
    println!("{BUNDLED} is up to date");
    Ok(())
}

/// Fails unless the library's copy is made of these sources; and, by the same compiler, is the same
/// bytes as the component that was built last. Other compilers make other bytes.
fn compare() -> Result<()> {
    let target = Target::find()?;
    let bundled = fs::read(target.root.join(BUNDLED))?;
    let made = fs::read(target.root.join("target/session.wasm"))?;
    let origin = target.origin()?;
    let sources = origin.lines().next().unwrap_or_default();
    // The section is the last one.
    let last = |component: &[u8]| {
        String::from_utf8_lossy(&component[component.len().saturating_sub(200)..]).into_owned()
    };
    let remedy = "run `make bundle`, and commit host/session.wasm";
    if !last(&bundled).contains(sources) {
        return Err(format!("component/ or wit/ has changed: {remedy}").into());
    }
    if !last(&made).ends_with(&origin) {
        return Err("target/session.wasm is out of date: run `make component`".into());
    }
    if last(&bundled).ends_with(&origin) && bundled != made {
        return Err(format!("what the component depends on has changed: {remedy}").into());
    }
    Ok(())
}

/// Builds the middleware, a store and an application, separately and composed. For the tests, also
/// builds an application controlled by each request, separately and composed with a way to query
/// the store.
fn middleware() -> Result<()> {
    let target = Target::find()?;
    let packages = [
        "edge-session-store-keyvalue",
        "edge-session-store-keyvalue-draft2",
        "edge-session-store-wasmcloud",
        "example-wasi-app",
        "edge-session-tests-wasi-app",
        "edge-session-tests-wasi-store",
        "edge-session-wasi-http",
        "edge-session-proxy-wasm",
    ];
    let modules = target.compile(&packages, "", &OTHER_SOURCES)?;
    // A core module: proxy-wasm knows no components.
    let Some((filter, modules)) = modules.split_last() else { unreachable!() };
    target.write("filter.wasm", filter)?;
    let components = modules.iter().map(|module| encode(module)).collect::<Result<Vec<_>>>()?;
    let [store, draft2, wasmcloud, app, tests_app, tests_store, middleware] = &components[..]
    else {
        unreachable!()
    };
    target.write("middleware.wasm", middleware)?;
    target.write("store-keyvalue.wasm", store)?;
    target.write("store-keyvalue-draft2.wasm", draft2)?;
    target.write("store-wasmcloud.wasm", wasmcloud)?;
    target.write("wasi-app.wasm", app)?;
    target.write("served.wasm", &join(&[store, app, middleware])?)?;
    target.write("wasi-app-for-tests.wasm", tests_app)?;
    let joined = join(&[store, tests_app, tests_store, middleware])?;
    target.write("served-for-tests.wasm", &joined)?;
    target.write("middleware-spin.wasm", &join(&[draft2, middleware])?)?;
    target.write("served-wasmcloud.wasm", &join(&[wasmcloud, app, middleware])?)?;
    let joined = join(&[wasmcloud, tests_app, tests_store, middleware])?;
    target.write("served-wasmcloud-for-tests.wasm", &joined)
}

/// The paths of the build.
struct Target {
    root: PathBuf,
    /// A separate directory, because the flags differ from those of native builds.
    wasm_dir: PathBuf,
}

impl Target {
    fn find() -> Result<Self> {
        // Read at run time, not at compile time, because checkouts may share a target directory.
        let manifest =
            env::var("CARGO_MANIFEST_DIR").map_err(|_| "run it with `cargo run -p xtask`")?;
        let root = Path::new(&manifest).parent().ok_or("no workspace")?.to_owned();
        let target_dir = env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
        Ok(Self { root, wasm_dir: target_dir.join("wasm") })
    }

    /// Returns the sources of session.wasm and the compiler, as text.
    fn origin(&self) -> Result<String> {
        // The middleware's directory is not part of them.
        let is_source = |path: &Path| !path.starts_with(self.root.join("wit/middleware"));
        let hash = hexadecimal(&self.hash(&SOURCES, is_source)?.finalize());
        let compiler = output(Command::new(compiler(&cargo()?)).arg("--version"))?;
        Ok(format!("sources {hash}\ncompiler {compiler}\n"))
    }

    /// Returns a hash of all files below these paths, with their names.
    fn hash(&self, paths: &[&str], is_input: impl Fn(&Path) -> bool) -> Result<Sha256> {
        let mut files = Vec::new();
        for path in paths {
            collect(&self.root.join(path), &mut files)?;
        }
        files.sort();
        let mut hash = Sha256::new();
        for file in files.into_iter().filter(|file| is_input(file)) {
            let name = file.strip_prefix(&self.root)?.display().to_string();
            let text = fs::read(&file)?;
            hash.update(format!("{name} {}\n", text.len()));
            hash.update(text);
        }
        Ok(hash)
    }

    /// Compiles these packages, of the sources of session.wasm and `more`, to core modules. What was
    /// compiled from the same inputs before is not compiled again: to cargo, all files of a new
    /// checkout have changed, and the optimisation takes minutes.
    fn compile(&self, packages: &[&str], flags: &str, more: &[&str]) -> Result<Vec<Vec<u8>>> {
        let inputs = [&["Cargo.lock", "Cargo.toml"], &SOURCES[..], more].concat();
        let mut hash = self.hash(&inputs, |_| true)?;
        hash.update(format!("{packages:?} {:?}\n", rustflags(flags)?));
        hash.update(output(Command::new(compiler(&cargo()?)).arg("-vV"))?);
        let kept = self.wasm_dir.join("kept");
        let modules = kept.join(hexadecimal(&hash.finalize()));
        if modules.is_dir() {
            return packages.iter().map(|package| Ok(fs::read(modules.join(package))?)).collect();
        }
        let compiled = self.compile_anew(packages, flags)?;
        let aside = kept.join(format!("new-{}", std::process::id()));
        fs::create_dir_all(&aside)?;
        for (package, module) in packages.iter().zip(&compiled) {
            fs::write(aside.join(package), module)?;
        }
        fs::rename(aside, modules)?;
        let mut all = fs::read_dir(kept)?
            .map(|entry| {
                let entry = entry?;
                Ok((entry.metadata()?.modified()?, entry.path()))
            })
            .collect::<Result<Vec<_>>>()?;
        all.sort();
        for (_, oldest) in all.iter().rev().skip(KEPT) {
            fs::remove_dir_all(oldest)?;
        }
        Ok(compiled)
    }

    fn compile_anew(&self, packages: &[&str], flags: &str) -> Result<Vec<Vec<u8>>> {
        let mut cargo = cargo()?;
        cargo
            .current_dir(&self.root)
            .args(["build", "--release", "--quiet", "--locked", "--lib", "--target", TARGET])
            .args(packages.iter().flat_map(|package| ["-p", package]))
            .env("CARGO_TARGET_DIR", &self.wasm_dir)
            .env_remove("RUSTFLAGS")
            // Unlike RUSTFLAGS, separated so that paths may contain spaces.
            .env("CARGO_ENCODED_RUSTFLAGS", rustflags(flags)?.join("\x1f"))
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
            .env("CARGO_PROFILE_RELEASE_LTO", "fat")
            .env("CARGO_PROFILE_RELEASE_STRIP", "symbols");
        if !cargo.status()?.success() {
            return Err(format!("{} failed to compile", packages.join(", ")).into());
        }
        let release = self.wasm_dir.join(TARGET).join("release");
        let module = |package: &&str| {
            Ok(fs::read(release.join(format!("{}.wasm", package.replace('-', "_"))))?)
        };
        packages.iter().map(module).collect()
    }

    fn write(&self, name: &str, component: &[u8]) -> Result<()> {
        let path = self.root.join("target").join(name);
        if fs::read(&path).is_ok_and(|old| old == component) {
            println!("target/{name} is up to date ({} bytes)", component.len());
            return Ok(());
        }
        fs::create_dir_all(self.root.join("target"))?;
        // Written to another file and renamed, so that a running host never sees a partial file.
        let aside = path.with_extension("wasm.new");
        fs::write(&aside, component)?;
        fs::rename(&aside, &path)?;
        println!("target/{name}: {} bytes", component.len());
        Ok(())
    }
}

/// Collects all files below `path`.
fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if !path.is_dir() {
        files.push(path.to_owned());
    } else {
        for entry in fs::read_dir(path)? {
            collect(&entry?.path(), files)?;
        }
    }
    Ok(())
}

/// Turns a core module into a component.
fn encode(module: &[u8]) -> Result<Vec<u8>> {
    wit_component::ComponentEncoder::default()
        .validate(true)
        .module(module)
        .and_then(|encoder| encoder.encode())
        .map_err(|error| format!("a module cannot be converted to a component: {error:#}").into())
}

/// Composes several components: each imports what the previous ones export. The result exports the
/// handler of the last one.
fn join(components: &[&[u8]]) -> Result<Vec<u8>> {
    let mut graph = CompositionGraph::new();
    let mut offered = BTreeMap::new();
    for (number, component) in components.iter().enumerate() {
        let name = format!("edge:part{number}");
        let package = Package::from_bytes(&name, None, *component, graph.types_mut())?;
        let world = &graph.types()[package.ty()];
        let imports: Vec<_> = world.imports.keys().cloned().collect();
        let exports: Vec<_> = world.exports.keys().cloned().collect();
        let package = graph.register_package(package)?;
        let instance = graph.instantiate(package);
        for import in imports {
            if let Some(node) = offered.get(&import) {
                graph.set_instantiation_argument(instance, &import, *node)?;
            }
        }
        for export in exports {
            offered.insert(export.clone(), graph.alias_instance_export(instance, &export)?);
        }
    }
    let handler = *offered.get(HANDLER).ok_or("no component exports a handler")?;
    graph.export(handler, HANDLER)?;
    Ok(graph.encode(EncodeOptions::default())?)
}

/// Returns the compiler flags. Panic messages name source files: those of this machine's directories
/// would be in the component, and make it differ from one machine to the next.
fn rustflags(flags: &str) -> Result<Vec<String>> {
    let mut all: Vec<_> =
        format!("{RUSTFLAGS} {flags}").split_whitespace().map(Into::into).collect();
    let mut remap = |from: &Path, to: &str| {
        all.push(format!("--remap-path-prefix={}={to}", from.display()));
    };
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(env::home_dir()?.join(".cargo"))).ok_or("no CARGO_HOME")?;
    // A directory for each registry.
    for registry in fs::read_dir(home.join("registry/src")).into_iter().flatten() {
        remap(&registry?.path(), "crates");
    }
    let cargo = cargo()?;
    let compiler = compiler(&cargo);
    let sysroot = output(Command::new(compiler).args(["--print", "sysroot"]))?;
    remap(&Path::new(&sysroot).join("lib/rustlib/src/rust"), "rust");
    Ok(all)
}

/// Returns the compiler that `cargo` uses for [`TARGET`].
fn compiler(cargo: &Command) -> OsString {
    let compiler = cargo.get_envs().find(|(name, _)| *name == "RUSTC").and_then(|it| it.1);
    compiler.unwrap_or("rustc".as_ref()).to_owned()
}

/// Returns a cargo that can compile for [`TARGET`]: the default one if the target's standard
/// library is installed, else Debian's compiler with a standard library built from source.
fn cargo() -> Result<Command> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or("cargo".into()));
    let libdir =
        output(Command::new("rustc").args(["--print", "target-libdir", "--target", TARGET]))?;
    let has_std = fs::read_dir(&libdir).is_ok_and(|mut entries| {
        entries.any(|entry| {
            entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("libstd-"))
        })
    });
    if has_std {
        return Ok(cargo);
    }
    let debian = Path::new("/usr/bin/rustc");
    let sources = output(Command::new(debian).args(["--print", "sysroot"]))
        .map(|sysroot| Path::new(&sysroot).join("lib/rustlib/src/rust/library/std"));
    if !sources.is_ok_and(|sources| sources.exists()) {
        return Err(NO_TOOLCHAIN.into());
    }
    // Its library sources need its own compiler, and rustup's WebAssembly linker.
    let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]))?;
    let host = output(Command::new("rustc").args(["--print", "host-tuple"]))?;
    let linker = Path::new(&sysroot).join("lib/rustlib").join(host).join("bin/rust-lld");
    cargo
        .arg("-Zbuild-std=std,panic_abort")
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTC", debian)
        .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
    Ok(cargo)
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.stderr(Stdio::null()).output()?;
    if !output.status.success() {
        return Err(format!("{command:?} failed").into());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

#[cfg(test)]
pub(crate) mod tests {
    use wac_graph::types::{ItemKind, Types};

    use super::*;

    /// Interfaces, each with its number of functions.
    type Interfaces = Vec<(String, usize)>;

    pub(crate) fn built(name: &str) -> PathBuf {
        let path = Target::find().unwrap().root.join("target").join(name);
        assert!(path.exists(), "{} is missing: run make middleware", path.display());
        path
    }

    /// Returns the imports and exports of a component in `target/`.
    fn world(name: &str) -> (Interfaces, Interfaces) {
        let path = built(name);
        let mut types = Types::default();
        let package = Package::from_file("edge:part", None, path, &mut types).unwrap();
        let world = &types[package.ty()];
        let item = |(name, kind): (&String, &ItemKind)| {
            let ItemKind::Instance(id) = kind else { panic!("{name} is no interface") };
            let is_function = |kind: &&ItemKind| matches!(kind, ItemKind::Func(_));
            (name.clone(), types[*id].exports.values().filter(is_function).count())
        };
        let sorted = |mut items: Vec<_>| {
            items.sort();
            items
        };
        let imports = sorted(world.imports.iter().map(item).collect());
        (imports, sorted(world.exports.iter().map(item).collect()))
    }

    fn names(items: &[(String, usize)]) -> Vec<&str> {
        items.iter().map(|(name, _)| name.as_str()).collect()
    }

    #[test]
    fn no_component_names_a_directory_of_this_machine() {
        let home = env::home_dir().unwrap().display().to_string();
        let root = Target::find().unwrap().root.display().to_string();
        for name in ["session.wasm", "middleware.wasm"] {
            let bytes = fs::read(built(name)).unwrap();
            for place in [&*home, &*root, "/registry/src/"] {
                let is_there = bytes.windows(place.len()).any(|it| it == place.as_bytes());
                assert!(!is_there, "{name} contains {place}");
            }
        }
    }

    #[test]
    fn the_library_has_the_component_that_these_sources_make() {
        built("session.wasm");
        compare().unwrap();
    }

    /// Checks what the middleware imports, with this in place of the store that it has or needs.
    #[track_caller]
    fn middleware_needs(file: &str, store: &'static str) {
        let (imports, exports) = world(file);
        let mut expected = vec![
            "edge:session/engine@0.2.0",
            "wasi:cli/environment@0.3.0",
            "wasi:cli/stderr@0.3.0",
            "wasi:cli/types@0.3.0",
            "wasi:clocks/system-clock@0.3.0",
            "wasi:http/handler@0.3.0",
            "wasi:http/types@0.3.0",
            "wasi:random/random@0.3.0",
            store,
        ];
        expected.sort_unstable();
        assert_eq!(names(&imports), expected);
        assert_eq!(imports[0].1, 0, "of the engine, the types of the store alone");
        assert_eq!(names(&exports), [HANDLER]);
    }

    #[test]
    fn the_middleware_can_do_no_more_than_its_job_needs() {
        middleware_needs("middleware.wasm", "edge:session/store@0.2.0");
    }

    /// Without the application with which it is composed.
    #[test]
    fn the_middleware_for_spin_needs_the_second_draft_of_keyvalue_and_a_handler() {
        middleware_needs("middleware-spin.wasm", "wasi:keyvalue/store@0.2.0-draft2");
    }

    #[test]
    fn a_store_in_keyvalue_needs_a_clock_beside_it() {
        let (imports, exports) = world("store-keyvalue.wasm");
        assert_eq!(
            names(&imports),
            [
                "edge:session/engine@0.2.0",
                "wasi:clocks/system-clock@0.3.0",
                "wasi:keyvalue/store@0.2.0-draft",
            ]
        );
        assert_eq!(imports[0].1, 0, "of the engine, the types of the store alone");
        assert_eq!(names(&exports), ["edge:session/store@0.2.0"]);
    }

    #[test]
    fn a_store_for_wasmcloud_needs_its_swaps_and_clocks() {
        let (imports, exports) = world("store-wasmcloud.wasm");
        assert_eq!(
            names(&imports),
            [
                "edge:session/engine@0.2.0",
                "wasi:clocks/monotonic-clock@0.3.0",
                "wasi:clocks/system-clock@0.3.0",
                "wasi:clocks/types@0.3.0",
                "wasmcloud:keyvalue/cas@0.2.0",
                "wasmcloud:keyvalue/store@0.2.0",
                "wasmcloud:keyvalue/types@0.2.0",
            ]
        );
        assert_eq!(names(&exports), ["edge:session/store@0.2.0"]);
    }

    /// Composes components as `wac plug` does, which the documentation describes. Returns what
    /// the result imports.
    fn plug(plugs: &[&str], socket: &str) -> Vec<String> {
        let mut graph = CompositionGraph::new();
        let mut register = |name: &str| {
            let path = built(&format!("{name}.wasm"));
            let name = format!("edge:{name}");
            let package = Package::from_file(&name, None, path, graph.types_mut()).unwrap();
            graph.register_package(package).unwrap()
        };
        let plugs = plugs.iter().map(|name| register(name)).collect();
        let socket = register(socket);
        wac_graph::plug(&mut graph, plugs, socket).unwrap();
        assert!(graph.get_export(HANDLER).is_some());
        graph.encode(EncodeOptions::default()).unwrap();
        graph.imports().map(|(name, ..)| name.to_owned()).collect()
    }

    #[test]
    fn wac_plug_joins_them_too() {
        let needs_neither = |imports: &[String]| {
            !imports.iter().any(|it| [HANDLER, "edge:session/store@0.2.0"].contains(&&**it))
        };
        let imports = plug(&["store-keyvalue", "wasi-app"], "middleware");
        assert!(needs_neither(&imports), "{imports:?}");
        let imports = plug(&["wasi-app"], "middleware-spin");
        assert!(needs_neither(&imports), "{imports:?}");
        assert!(imports.contains(&"wasi:keyvalue/store@0.2.0-draft2".to_owned()), "{imports:?}");
    }

    #[test]
    fn joined_they_need_what_a_host_of_wasi_http_has() {
        let (imports, exports) = world("served.wasm");
        let ours = imports.iter().filter(|(name, _)| !name.starts_with("wasi:"));
        // Only types, no functions for a host to provide.
        assert_eq!(
            ours.cloned().collect::<Vec<_>>(),
            [("edge:session/engine@0.2.0".to_owned(), 0)]
        );
        assert!(!names(&imports).contains(&HANDLER));
        assert_eq!(names(&exports), [HANDLER]);
    }
}
