//! HTTP/2 and the gateway's own TLS, tested with curl.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use edge_session_tests::{Launch, Server, Upstream, new_certificate, temp_dir, wait_for};

/// Returns curl's output as text.
fn curl(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "10", "--noproxy", "*"])
        .args(arguments)
        .output()
        .expect("curl is installed: apt-get install curl");
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

fn with_tls(upstream: &Upstream, dir: &Path) -> Server {
    new_certificate(dir);
    let dir = dir.display();
    let config = format!("[tls]\ncertificate = \"{dir}/certificate.pem\"\nkey = \"{dir}/key.pem\"");
    Launch::new("memory:").upstream(&upstream.url()).config(&config).start()
}

/// `https://localhost:PORT`
fn secure_url(server: &Server) -> String {
    format!("https://{}", server.address().replace("127.0.0.1", "localhost"))
}

const NEW: &str = "Say: Edge-Session: {\"a\":1}";

#[test]
fn http2_and_http1_are_spoken_over_tls() {
    let upstream = Upstream::parrot();
    let dir = temp_dir("tls-");
    let server = with_tls(&upstream, dir.path());
    let url = secure_url(&server) + "/x?y";
    let trust = dir.path().join("certificate.pem").display().to_string();
    for (version, shown) in [("--http2", "HTTP/2 200"), ("--http1.1", "HTTP/1.1 200")] {
        let page = curl(&["--cacert", &trust, version, "--include", "-H", NEW, &url]).unwrap();
        assert!(page.starts_with(shown), "{page}");
        let cookie = page.lines().find(|line| line.to_lowercase().starts_with("set-cookie:"));
        assert!(cookie.is_some_and(|cookie| cookie.contains("; Secure")), "{page}");
        assert!(!page.to_lowercase().contains("edge-session"), "{page}");
        let asked = upstream.last();
        assert_eq!((&*asked.method, &*asked.target), ("GET", "/x?y"));
        assert_eq!(asked.header("x-forwarded-proto"), Some("https"));
        let host = secure_url(&server).replace("https://", "");
        assert_eq!(asked.header("host"), Some(&*host), "{asked:#?}");
        assert_eq!(asked.header("x-forwarded-host"), Some(&*host));
    }
    // Plain HTTP is not supported on this port.
    let mut plain = server.wire();
    plain.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(!String::from_utf8_lossy(&plain.rest()).contains("HTTP/1.1 200"));
    let five = Duration::from_secs(5);
    wait_for("the count", five, || (server.refused("tls") == 1).then_some(()));
    server.stop();
}

#[test]
fn http2_is_spoken_with_who_knows_it_beforehand() {
    let upstream = Upstream::parrot();
    let config = "[limits]\nbody_bytes = 100000\n[[guard]]\npaths = [\"/no\"]\ndeny = true";
    let server = Launch::new("memory:").upstream(&upstream.url()).config(config).start();
    let h2 = |arguments: &[&str], path: &str| {
        let url = server.url() + path;
        let common = ["--http2-prior-knowledge", "--include"];
        curl(&[&common[..], arguments, &[&*url]].concat()).unwrap()
    };
    let body = "x".repeat(50_000);
    let page = h2(&["-H", NEW, "-H", "TE: trailers", "--data", &body], "/a%20b?c");
    assert!(page.starts_with("HTTP/2 200"), "{page}");
    let asked = upstream.last();
    assert_eq!((&*asked.method, &*asked.target), ("POST", "/a%20b?c"));
    assert_eq!(asked.body.len(), body.len());
    assert_eq!(asked.header("host"), Some(&*server.address()));
    assert!(!asked.head.headers.iter().any(|(name, _)| name.starts_with(':')), "{asked:#?}");

    // Cookies may arrive as separate fields, and become one header in HTTP/1.
    let cookie = page.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
    let cookie = cookie.split(';').next().unwrap();
    let apart = format!("Cookie: a=1; {cookie}; b=2");
    let page = h2(&["-H", &apart], "/");
    assert!(page.ends_with(r#"{"a":1}"#), "{page}");
    let joined = format!("a=1; {cookie}; b=2");
    assert_eq!(upstream.last().header("cookie"), Some(&*joined));

    // The same rules apply.
    let before = upstream.count();
    let as_is = vec!["--path-as-is"];
    for (arguments, path, status) in [
        (as_is.clone(), "/NO//x", 403),
        (as_is, "/a/../b", 400),
        (vec!["--request", "TRACE"], "/", 405),
    ] {
        let page = h2(&arguments, path);
        assert!(page.starts_with(&format!("HTTP/2 {status}")), "{path}: {page}");
    }
    // The response and a reset without an error arrive before the whole body was sent. This is
    // valid (RFC 9113, section 8.1), but not every curl then shows the response.
    let (too_much, url) = ("x".repeat(100_001), server.url());
    let _ = curl(&["--http2-prior-knowledge", "--data", &too_much, &url]);
    assert_eq!(server.refused("body-too-large"), 1);
    assert_eq!(upstream.count(), before);
    // An HTTP/1 request to upgrade to HTTP/2 is answered in HTTP/1.
    let page = curl(&["--http2", "--include", &server.url()]).unwrap();
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    server.stop();
}

#[test]
fn a_new_certificate_is_in_force_after_a_signal_and_a_broken_one_never() {
    let upstream = Upstream::parrot();
    let dir = temp_dir("tls-");
    let server = with_tls(&upstream, dir.path());
    let url = secure_url(&server);
    let file = dir.path().join("certificate.pem");
    let trusted_by = |name: &str| {
        let trust = dir.path().join(name).display().to_string();
        curl(&["--cacert", &trust, &url]).is_ok()
    };
    fs::copy(&file, dir.path().join("first.pem")).unwrap();
    assert!(trusted_by("first.pem"));

    new_certificate(dir.path());
    fs::copy(&file, dir.path().join("second.pem")).unwrap();
    assert!(trusted_by("first.pem") && !trusted_by("second.pem"), "not before the signal");
    server.hang_up();
    let limit = Duration::from_secs(10);
    wait_for("the new certificate", limit, || trusted_by("second.pem").then_some(()));
    assert!(!trusted_by("first.pem"));

    let key = dir.path().join("key.pem");
    let good_key = fs::read(&key).unwrap();
    fs::write(&file, "not a certificate").unwrap();
    server.hang_up();
    let kept = || server.log().matches("the TLS certificate was not reloaded").count();
    wait_for("the first complaint", limit, || (kept() == 1).then_some(()));
    // A key that belongs to another certificate is treated alike.
    new_certificate(dir.path());
    fs::write(&key, good_key).unwrap();
    server.hang_up();
    wait_for("the second complaint", limit, || (kept() == 2).then_some(()));
    assert!(trusted_by("second.pem"));
    assert!(!server.log().contains("PRIVATE"), "{}", server.log());
    server.stop();
}

#[test]
fn an_application_behind_tls_is_believed_when_its_certificate_is() {
    let upstream = Upstream::parrot();
    let dir = temp_dir("tls-");
    let inner = with_tls(&upstream, dir.path());
    let outer = Launch::new("memory:").upstream(&secure_url(&inner));
    let certificate = dir.path().join("certificate.pem").display().to_string();

    let trusting = outer.env("SSL_CERT_FILE", &certificate).start();
    let mut caller = trusting.caller();
    for _ in 0..3 {
        assert_eq!(caller.get("/", &["Say: X-Mine: 1"]).head.header("x-mine"), Some("1"));
    }
    assert_eq!(upstream.last().header("x-forwarded-proto"), Some("http"));
    trusting.stop();

    let doubting = Launch::new("memory:").upstream(&secure_url(&inner)).start();
    assert_eq!(doubting.caller().get("/", &[]).status, 502);
    assert!(doubting.log().contains("certificate"), "{}", doubting.log());
    assert_eq!(upstream.count(), 3);
    doubting.stop();
    inner.stop();
}
