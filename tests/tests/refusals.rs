//! Impossible settings are refused at startup, and the message says what to change.

use std::fs;

use edge_session_tests::{Launch, temp_dir};

#[track_caller]
fn assert_says(output: &str, parts: &[&str]) {
    for part in parts {
        assert!(output.contains(part), "{part:?} is not in: {output}");
    }
}

#[test]
fn every_bad_option_is_listed_at_once() {
    let weak = "hunter2-is-weak";
    let output = Launch::new("memory:")
        .env("EDGE_SESSION_SECRET", weak)
        .config(
            r#"
            name = "__Host-sid"
            saveUninitialised = true

            [cookie]
            domain = "example.org"
            same_site = "none"
            secure = false
            "#,
        )
        .refusal();
    assert_says(&output, &["saveUninitialised", "__Host-", "domain", "same_site", "secret"]);
    assert!(!output.contains(weak), "the secret is shown: {output}");
}

#[test]
fn a_missing_secret_is_refused() {
    let output = Launch::new("memory:").without_env("EDGE_SESSION_SECRET").refusal();
    assert_says(&output, &["EDGE_SESSION_SECRET"]);
}

#[test]
fn a_comma_inside_a_secret_is_not_taken_for_the_end_of_it() {
    let cut = "only-for-tests-0123456789-abcdefghij,hunter2";
    for preset in ["safe", "express"] {
        let launch = Launch::new("memory:")
            .env("EDGE_SESSION_PRESET", preset)
            .env("EDGE_SESSION_ALLOW_WEAK_SECRET", "true");
        let output = launch.clone().env("EDGE_SESSION_SECRET", cut).refusal();
        assert_says(&output, &["secret: number 2 has 7 bytes", "EDGE_SESSION_SECRET_FILE"]);
        assert!(!output.contains("hunter2"), "the secret is shown: {output}");

        // A line of a file may contain commas, and one short secret does not come from splitting at
        // them.
        let dir = temp_dir("secret-");
        let file = dir.path().join("secret");
        fs::write(&file, "only-for-tests, and with a comma\nhunter2\n").unwrap();
        let by_file = launch
            .clone()
            .without_env("EDGE_SESSION_SECRET")
            .env("EDGE_SESSION_SECRET_FILE", file.to_str().unwrap());
        for (launch, weak) in
            [(by_file, "2"), (launch.env("EDGE_SESSION_SECRET", "keyboard cat"), "1")]
        {
            let (done, said) = launch.run(dir.path(), &["check"]);
            assert!(done, "{said}");
            assert_says(&said, &[&format!("secret: number {weak} has"), "bytes"]);
            assert!(!said.contains("keyboard cat") && !said.contains("hunter2"), "{said}");
        }
    }
}

#[test]
fn an_unknown_kind_of_store_is_refused() {
    let output = Launch::new("mysql://visitor:hunter2@127.0.0.1/").refusal();
    assert_says(&output, &["mysql", "memory:", "file:", "mongodb://", "redis://", "postgres://"]);
    assert!(!output.contains("hunter2"), "the password is shown: {output}");
}

#[test]
fn a_mongodb_that_cannot_be_reached_is_named_without_its_password() {
    // Port 1 is refused at once; 192.0.2.1 (TEST-NET-1) may drop packets forever.
    for host in ["127.0.0.1:1", "192.0.2.1:27017"] {
        let output = Launch::new(&format!("mongodb://visitor:hunter2@{host}/sessions")).refusal();
        assert_says(&output, &[host]);
        assert!(!output.contains("hunter2"), "the password is shown: {output}");
    }
}

#[test]
fn a_mongodb_address_without_servers_in_dns_is_told_from_other_mistakes() {
    // RFC 6761, section 6.4: no name below `invalid` exists.
    let password = "hunter2";
    for (address, expected) in [
        ("mongodb+srv://a:hunter2@nowhere.invalid/", "DNS has no servers for the mongodb+srv://"),
        (
            "mongodb+srv://a:hunter2@nowhere.invalid/?foo=1",
            "the option foo of the mongodb:// address",
        ),
        ("mongodb://a:hunter2@127.0.0.1:1/?w=0", "sets w=0: failed writes would go unnoticed"),
    ] {
        let output = Launch::new(address).refusal();
        assert_says(&output, &[expected]);
        assert!(!output.contains(password), "the password is shown: {output}");
    }
}

#[test]
fn a_configuration_file_that_is_not_toml_is_refused() {
    assert_says(&Launch::new("memory:").config("name = \n").refusal(), &["config.toml"]);
}

#[test]
fn a_file_that_is_not_the_component_is_named_with_what_was_expected() {
    let dir = temp_dir("component-");
    let cases: [(&str, Option<&[u8]>, &str); 4] = [
        ("missing.wasm", None, "No such file"),
        ("text.wasm", Some(b"not WebAssembly"), "WebAssembly component"),
        ("core-module.wasm", Some(b"\0asm\x01\0\0\0"), "WebAssembly component"),
        // A complete component, which exports nothing.
        ("another-world.wasm", Some(b"\0asm\x0d\0\x01\0"), "edge:session"),
    ];
    for (name, content, expected) in cases {
        let path = dir.path().join(name);
        if let Some(content) = content {
            fs::write(&path, content).unwrap();
        }
        let path = path.to_str().unwrap();
        let output = Launch::new("memory:").env("EDGE_SESSION_COMPONENT", path).refusal();
        assert_says(&output, &[path, expected]);
    }
}

#[test]
fn sessions_are_not_kept_in_plain_text_where_something_else_was_meant() {
    let memory = Launch::new("memory:")
        .config("[store]\ncrypto = \"webcrypto\"\ntransform_id = \"sha256\"")
        .env("EDGE_SESSION_CRYPTO_SECRET", "the store's");
    assert_says(&memory.refusal(), &["2 problems", "store.crypto: ", "store.transform_id: "]);
    let forgotten = Launch::new("memory:").env("EDGE_SESSION_CRYPTO_SECRET", "the store's");
    assert_says(
        &forgotten.refusal(),
        &["store.crypto: is not set, but EDGE_SESSION_CRYPTO_SECRET is"],
    );
    let without = Launch::new("mongodb://127.0.0.1:1").config("[store]\ncrypto = \"kruptein\"");
    assert_says(
        &without.refusal(),
        &["store.crypto: needs a secret: set EDGE_SESSION_CRYPTO_SECRET"],
    );
}
