//! What the program uses from the machine that it starts on: code only from its own user.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use edge_session_tests::{
    Launch, SECRET, binary, component, count_files, free_port, temp_dir, wait_for,
};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Creates a folder that is suitable for compiled code, unlike some checkouts.
fn fit() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// Whether the folder contains compiled code, which is all that the program puts there.
fn has_code(directory: &Path) -> bool {
    count_files(directory) > 0
}

#[test]
fn compiled_code_is_kept_where_nobody_else_may_write() {
    let dir = fit();
    let check = || {
        let home = dir.path().to_str().unwrap();
        Launch::new("memory:").env("XDG_CACHE_HOME", home).run(dir.path(), &["check"])
    };
    let cache = dir.path().join("edge-session/compiled");
    let (done, said) = check();
    assert!(done && !said.contains("compiled"), "{said}");
    assert!(has_code(&cache));
    assert_eq!(mode(&cache), 0o700);
}

#[test]
fn a_cache_that_others_may_write_to_is_not_used_and_stops_nobody() {
    for open in ["", "edge-session", "edge-session/compiled", "edge-session/compiled/modules"] {
        let dir = fit();
        let cache = dir.path().join("edge-session/compiled");
        fs::create_dir_all(dir.path().join(open)).unwrap();
        if open.ends_with("modules") {
            set_mode(&cache, 0o755);
        }
        set_mode(&dir.path().join(open), 0o777);
        let home = dir.path().to_str().unwrap();
        let launch = Launch::new("memory:").env("XDG_CACHE_HOME", home);
        let (done, said) = launch.run(dir.path(), &["check"]);
        assert!(done, "{said}");
        assert!(said.contains("is writable by others") && said.contains(open), "{said}");
        assert!(!has_code(dir.path()), "{open:?}: code was put where others can change it");
        let server = launch.start();
        assert!(server.log().contains("is writable by others"), "{}", server.log());
        server.stop();
        assert!(!has_code(dir.path()), "{open:?}: code was put where others can change it");
    }
}

#[test]
fn without_a_place_for_compiled_code_the_program_starts() {
    let dir = fit();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    for cache in [file.to_str().unwrap(), "/proc/none", "/dev/null", "relative"] {
        let launch = Launch::new("memory:").env("XDG_CACHE_HOME", cache).env("HOME", cache);
        let (done, said) = launch.run(dir.path(), &["check"]);
        assert!(done && said.contains("is valid"), "{cache}: {said}");
    }
}

#[test]
fn the_component_is_in_the_program_and_another_one_is_taken_when_it_is_named() {
    let dir = temp_dir("component-");
    // Files in the working directory are not used.
    for lure in ["session.wasm", "target/session.wasm"] {
        let lure = dir.path().join(lure);
        fs::create_dir_all(lure.parent().unwrap()).unwrap();
        fs::write(lure, "no component").unwrap();
    }
    let program = dir.path().join("edge-session");
    if fs::hard_link(binary(), &program).is_err() {
        fs::copy(binary(), &program).unwrap();
    }
    let check = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        let command = command.env_clear().env("EDGE_SESSION_SECRET", SECRET).arg("check");
        let output = command.args(arguments).current_dir(dir.path()).output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    let (done, said) = check(&[]);
    assert!(done, "{said}");
    let (done, said) = check(&["--component", "session.wasm"]);
    assert!(!done && said.contains("session.wasm is not a WebAssembly component"), "{said}");
    let (done, said) = check(&["--component", component().to_str().unwrap()]);
    assert!(done, "{said}");
}

#[test]
fn a_variable_that_is_spelled_wrong_is_refused_by_its_name_and_kubernetes_are_not() {
    let dir = temp_dir("variables-");
    let kubernetes = Launch::new("memory:")
        .env("EDGE_SESSION_SERVICE_HOST", "10.0.0.1")
        .env("EDGE_SESSION_PORT", "tcp://10.0.0.1:8080")
        .env("EDGE_SESSION_PORT_8080_TCP_ADDR", "10.0.0.1");
    let (done, said) = kubernetes.run(dir.path(), &["check"]);
    assert!(done, "{said}");
    let wrong = kubernetes.env("EDGE_SESSION_COOKIE_MAXAGE", "1");
    let (done, said) = wrong.run(dir.path(), &["check"]);
    assert!(
        !done && said.contains("EDGE_SESSION_COOKIE_MAXAGE: is not a known variable"),
        "{said}"
    );
}

#[test]
fn a_byte_order_mark_before_a_secret_is_no_part_of_it() {
    let dir = temp_dir("secret-");
    let file = dir.path().join("secret");
    fs::write(&file, format!("\u{feff}{SECRET}\r\n")).unwrap();
    let store = format!("file:{}", dir.path().join("sessions").display());
    let server = Launch::new(&store).start();
    let mut visitor = server.visitor();
    assert_eq!(visitor.get("/").count(), 1);
    let cookie = visitor.cookie().to_owned();
    server.stop();
    let marked = Launch::new(&store).without_env("EDGE_SESSION_SECRET");
    let server = marked.env("EDGE_SESSION_SECRET_FILE", file.to_str().unwrap()).start();
    let mut visitor = server.visitor();
    visitor.set_cookie(&cookie);
    assert_eq!(visitor.get("/").count(), 2);
    server.stop();
}

/// In a container: as the user `nobody`, without a writable folder.
#[test]
fn as_nobody_with_nothing_to_write_to_it_checks_and_serves() {
    let dir = tempfile::tempdir().expect("there is a place for temporary files");
    let everybody = fs::Permissions::from_mode(0o755);
    fs::set_permissions(dir.path(), everybody).unwrap();
    fs::copy(binary(), dir.path().join("edge-session")).unwrap();
    let port = free_port();
    // A separate mount namespace with a read-only root.
    let script = format!(
        "mount -o remount,bind,ro / && mount --bind -o ro {dir} {dir} && \
         mount -o remount,bind,ro {dir} && cd / && \
         exec setpriv --reuid=65534 --regid=65534 --clear-groups sh -c ' \
           touch {dir}/written 2>/dev/null && echo it can write; \
           {dir}/edge-session check --store memory: && \
           exec {dir}/edge-session serve --store memory: --listen 127.0.0.1:{port}'",
        dir = dir.path().display()
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]).env_clear();
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("HOME", "/nonexistent").env("EDGE_SESSION_SECRET", SECRET);
    let log = dir.path().join("log");
    let output = fs::File::create(&log).unwrap();
    command.stdout(output.try_clone().unwrap()).stderr(output);
    let mut child = command.spawn().expect("unshare can be run");
    let url = format!("http://127.0.0.1:{port}/");
    wait_for("it to serve", Duration::from_secs(10), || {
        let said = fs::read_to_string(&log).unwrap_or_default();
        assert!(child.try_wait().unwrap().is_none(), "it has ended: {said}");
        ureq::get(&url).call().is_ok_and(|answer| answer.status() == 200).then_some(())
    });
    child.kill().unwrap();
    child.wait().unwrap();
    let said = fs::read_to_string(&log).unwrap();
    assert!(said.contains("The configuration is valid."), "{said}");
    assert!(said.contains("every start compiles"), "{said}");
    assert!(!said.contains("it can write"), "{said}");
}
