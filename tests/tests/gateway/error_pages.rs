//! How visitors see the gateway's own error responses.

use edge_session_tests::{Launch, Upstream, free_port, node::browse, temp_dir};
use serde_json::{Value, json};

const NAVIGATION: &str = "Sec-Fetch-Mode: navigate";

#[test]
fn a_person_gets_a_page_a_script_a_problem_and_others_a_line_of_text() {
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let config = "[[guard]]\npaths = [\"/internal\"]\ndeny = true";
    let server = Launch::new("memory:").upstream(&nobody).config(config).start();
    let mut caller = server.caller();
    for (path, status, title, text) in [
        ("/a", 502, "Bad Gateway", "The application cannot be reached."),
        ("/internal", 403, "Forbidden", "Access is denied."),
        ("/a/../b", 400, "Bad Request", "The path is ambiguous."),
    ] {
        let id = "X-Request-Id: an-id.1";
        let page = caller.get(path, &[NAVIGATION, id]);
        assert_eq!(page.status, status);
        assert_eq!(page.head.header("content-type"), Some("text/html; charset=utf-8"));
        assert_eq!(page.head.header("cache-control"), Some("no-store"));
        assert!(
            page.head.header("content-security-policy").is_some_and(|it| it.contains("'none'"))
        );
        for part in [title, text, "an-id.1"] {
            assert!(page.text().contains(part), "{part}: {}", page.text());
        }
        let problem = caller.get(path, &["Accept: application/json", id]);
        assert_eq!(problem.head.header("content-type"), Some("application/problem+json"));
        let expected = json!({
            "type": "about:blank", "title": title, "status": status, "detail": text,
            "request_id": "an-id.1",
        });
        assert_eq!((problem.status, problem.json()), (status, expected));
        for accept in ["*/*", "application/jsonp", "application/json;q=0", "text/htmlx"] {
            let line = caller.get(path, &[&format!("Accept: {accept}")]);
            assert_eq!((line.status, line.text()), (status, format!("{text}\n")), "{accept}");
        }
        // A person also waits for the response to a form.
        let form = caller.ask("POST", path, &[NAVIGATION, "Content-Length: 0"], b"");
        assert_eq!(form.head.header("content-type"), Some("text/html; charset=utf-8"));
    }
    server.stop();
}

#[test]
fn a_session_that_cannot_be_had_is_told_by_a_page_too() {
    let app = Upstream::parrot();
    let config = "max_session_bytes = 1000";
    let server = Launch::new("memory:").upstream(&app.url()).config(config).start();
    let large = format!("Say: Edge-Session: {{\"a\":\"{}\"}}", "x".repeat(2000));
    let page = server.caller().get("/", &[NAVIGATION, &large]);
    assert_eq!(page.status, 500);
    assert!(page.text().contains("The session could not be saved."), "{}", page.text());
    assert!(page.text().contains("<!DOCTYPE html>"), "{}", page.text());
    server.stop();
}

#[test]
fn an_application_answers_as_it_likes_and_an_operator_has_pages_of_its_own() {
    let app = Upstream::parrot();
    let dir = temp_dir("pages-");
    std::fs::write(dir.path().join("403.html"), "<p>Ours: {request-id}, {request-id}").unwrap();
    // These names do not match.
    for name in ["+401.html", "0401.html", "401.htm", "99.html"] {
        std::fs::write(dir.path().join(name), "<p>not this one").unwrap();
    }
    let config = format!(
        "[gateway]\nerror_pages = {:?}\n[[guard]]\npaths = [\"/no\", \"/login\"]\nrequire = \"/u\"\n\
         [[guard]]\npaths = [\"/internal\"]\ndeny = true",
        dir.path().display().to_string()
    );
    let server = Launch::new("memory:").upstream(&app.url()).config(&config).start();
    let mut caller = server.caller();
    let own = caller.get("/internal", &[NAVIGATION, "X-Request-Id: x-1"]);
    assert_eq!((own.status, own.text()), (403, "<p>Ours: x-1, x-1".to_owned()));
    assert_eq!(own.head.header("content-security-policy"), None, "it is the operator's page");
    assert!(caller.get("/no", &[NAVIGATION]).text().contains("Please log in."));
    for status in [404, 500, 503] {
        let said = format!("Say-Status: {status}");
        let answer = caller.get("/", &[NAVIGATION, &said]);
        assert_eq!((answer.status, answer.text()), (status, "{}".to_owned()), "the application's");
    }
    server.stop();
}

#[test]
fn a_page_that_is_no_file_or_too_large_is_refused_at_the_start() {
    let dir = temp_dir("pages-");
    let config = format!(
        "upstream = \":9\"\n[gateway]\nerror_pages = {:?}",
        dir.path().display().to_string()
    );
    let file = dir.path().join("edge.toml");
    std::fs::write(&file, config).unwrap();
    let page = dir.path().join("500.html");
    let check = || {
        let arguments = ["check", "--config", "edge.toml"];
        let (done, said) = Launch::new("memory:").run(dir.path(), &arguments);
        assert!(!done, "{said}");
        said
    };
    std::fs::create_dir(&page).unwrap();
    assert!(check().contains("500.html: it is not a regular file"));
    std::fs::remove_dir(&page).unwrap();
    // A pipe without a writer.
    let made = std::process::Command::new("mkfifo").arg(&page).status().unwrap();
    assert!(made.success() && check().contains("500.html: it is not a regular file"));
    std::fs::remove_file(&page).unwrap();
    std::fs::write(&page, vec![b'x'; (1 << 20) + 1]).unwrap();
    assert!(check().contains("500.html: it has more than 1048576 bytes"));
}

#[test]
fn the_page_fits_every_window_in_light_and_in_dark() {
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let server = Launch::new("memory:").upstream(&nobody).start();
    let url = format!("{}/a", server.url());
    let mut steps = Vec::new();
    for (width, scheme) in [(390, "light"), (390, "dark"), (1200, "light"), (1200, "dark")] {
        steps.push(json!({ "window": [width, 800, scheme] }));
        steps.push(json!({ "goto": url }));
    }
    let notes = browse(false, &steps);
    for note in notes.iter().skip(1).step_by(2) {
        assert_eq!(note["status"], 502);
        assert_eq!(note["overflow"], Value::from(0), "nothing is wider than the window: {note}");
        assert!(note["text"].as_str().is_some_and(|text| text.contains("Try again")), "{note}");
    }
    server.stop();
}
