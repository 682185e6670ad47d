//! The examples of docs/embedding.md work, and the page shows their code.

use std::path::PathBuf;
use std::process::Command;

use edge_session_tests::checkout;

/// Checks three visits, then one with a forged cookie.
#[track_caller]
fn counts_and_refuses_a_forged_cookie(command: &mut Command) {
    let output = command.output().expect("the example can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1 visits\n2 visits\n3 visits\n1 visits\n");
}

fn example(file: &str) -> PathBuf {
    checkout().join("examples/embedding").join(file)
}

fn component() -> PathBuf {
    checkout().join("host/session.wasm")
}

#[test]
fn the_example_in_rust_counts() {
    // Located relative to the test binary, which is in TARGET/PROFILE/deps.
    let tests = std::env::current_exe().expect("a program knows its path");
    let profile = tests.ancestors().nth(2).expect("it is in a profile's folder");
    let program = profile.join("example-embedding");
    assert!(program.exists(), "run cargo build -p example-embedding");
    counts_and_refuses_a_forged_cookie(Command::new(program).arg(component()));
}

#[test]
fn the_example_in_javascript_counts() {
    counts_and_refuses_a_forged_cookie(Command::new("node").arg(example("javascript/main.mjs")));
}

#[test]
fn the_example_in_python_counts() {
    let python = std::env::var_os("EDGE_SESSION_PYTHON").expect(
        "EDGE_SESSION_PYTHON is what scripts/setup python makes: TARGET/tools/python/bin/python",
    );
    let mut command = Command::new(python);
    counts_and_refuses_a_forged_cookie(command.arg(example("python/main.py")).arg(component()));
}

#[test]
fn the_page_shows_the_examples_as_they_are() {
    let read = |path: PathBuf| {
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let page = read(checkout().join("docs/embedding.md"));
    for (file, language) in
        [("javascript/embed.mjs", "js"), ("python/embed.py", "python"), ("rust/embed.rs", "rust")]
    {
        let block = format!("```{language}\n{}```\n", read(example(file)));
        assert!(page.contains(&block), "docs/embedding.md has another {file} than examples/");
    }
}
