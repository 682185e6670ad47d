//! Builds `target/session.wasm`: `cargo run -p xtask -- component`.
//!
//! Two things that cargo cannot do by itself: find out which way of compiling to
//! WebAssembly works on this machine, and turn the core module into a component.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const TARGET: &str = "wasm32-unknown-unknown";

/// A small stack keeps an instance's memory small; SIMD is what sha2 is fast with.
const RUSTFLAGS: &str = "-Ctarget-feature=+simd128 -Clink-arg=-zstack-size=65536";

const NO_TOOLCHAIN: &str = "no standard library for wasm32-unknown-unknown was found.
Either of these provides it:
  rustup target add wasm32-unknown-unknown
  apt-get install rustc-web rust-web-src        (Debian)
`scripts/setup wasm` tries both.";

fn main() -> ExitCode {
    let result = match env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [verb] if verb == "component" => component(),
        _ => Err("usage: cargo run -p xtask -- component".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

fn component() -> Result<()> {
    // As cargo says it now, not as it was when this was compiled: checkouts may share a
    // target directory.
    let manifest = env::var("CARGO_MANIFEST_DIR").map_err(|_| "run it by `cargo run -p xtask`")?;
    let root = Path::new(&manifest).parent().ok_or("no workspace")?;
    let target_dir = env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
    // A directory of its own: the flags differ from those of native builds.
    let wasm_dir = target_dir.join("wasm");

    let mut cargo = cargo()?;
    cargo
        .current_dir(root)
        .args(["build", "--release", "--quiet", "--locked", "-p", "edge-session-component"])
        .args(["--lib", "--target", TARGET])
        .env("CARGO_TARGET_DIR", &wasm_dir)
        .env("RUSTFLAGS", RUSTFLAGS)
        .env("CARGO_PROFILE_RELEASE_LTO", "fat")
        .env("CARGO_PROFILE_RELEASE_STRIP", "symbols");
    if !cargo.status()?.success() {
        return Err("the component did not compile".into());
    }
    let module = fs::read(wasm_dir.join(TARGET).join("release/edge_session_component.wasm"))?;
    let component = wit_component::ComponentEncoder::default()
        .validate(true)
        .module(&module)
        .and_then(|encoder| encoder.encode())
        .map_err(|error| format!("the module cannot be made a component: {error:#}"))?;

    let path = root.join("target/session.wasm");
    if fs::read(&path).is_ok_and(|old| old == component) {
        println!("target/session.wasm is up to date ({} bytes)", component.len());
        return Ok(());
    }
    fs::create_dir_all(root.join("target"))?;
    // Written aside and renamed: a running host never sees half a file.
    let aside = path.with_extension("wasm.new");
    fs::write(&aside, &component)?;
    fs::rename(&aside, &path)?;
    println!("target/session.wasm: {} bytes", component.len());
    Ok(())
}

/// A cargo that can compile for [`TARGET`]: the usual one where its standard library is
/// installed, else Debian's compiler with a standard library built from source.
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
    // Its library sources need its own compiler, and rustup's linker for WebAssembly.
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

fn output(command: &mut Command) -> Result<String> {
    let output = command.stderr(Stdio::null()).output()?;
    if !output.status.success() {
        return Err(format!("{command:?} failed").into());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
