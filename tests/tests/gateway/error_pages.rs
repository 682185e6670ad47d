//! What visitors see of answers that the gateway gives itself.

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
        ("/internal", 403, "Forbidden", "You may not see this."),
        ("/a/../b", 400, "Bad Request", "The path can be read in more than one way."),
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
        let line = caller.get(path, &["Accept: */*"]);
        assert_eq!((line.status, line.text()), (status, format!("{text}\n")));
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
