//! Checks the files of `deploy/` and `.github/` with the tools for their formats. They are not run,
//! because the tests have no Docker, Kubernetes or GitHub.

use std::process::Command;

use edge_session_tests::{Launch, checkout, node, temp_dir};

fn python() -> Command {
    Command::new(std::env::var_os("EDGE_SESSION_PYTHON").expect("run scripts/setup python"))
}

#[test]
fn the_workflows_are_what_github_takes() {
    let mut lint = node::command("workflows.mjs");
    let workflows = checkout().join(".github/workflows");
    let output =
        lint.args(["ci.yml", "release.yml"].map(|it| workflows.join(it))).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.is_empty(), "{said}{output:?}");
    // Check that a mistake is found.
    let dir = temp_dir("workflows-");
    let wrong = dir.path().join("wrong.yml");
    let text = std::fs::read_to_string(workflows.join("ci.yml")).unwrap();
    std::fs::write(&wrong, text.replace("runs-on", "run-on")).unwrap();
    let output = node::command("workflows.mjs").arg(&wrong).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("run-on"));
}

#[test]
fn the_manifests_are_what_kubernetes_takes() {
    let mut validate = python();
    validate.args(["-m", "kubernetes_validate", "--strict", "--quiet"]);
    let output = validate.arg(checkout().join("deploy/kubernetes.yaml")).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// Spin itself is not installed. What is composed is tested in `xtask`.
#[test]
fn the_manifest_for_spin_names_its_component_and_the_bucket() {
    let read = "import json, sys, tomllib\n\
                print(json.dumps(tomllib.load(open(sys.argv[1], 'rb'))))";
    let file = checkout().join("deploy/spin/spin.toml");
    let output = python().args(["-c", read]).arg(file).output().unwrap();
    let manifest: serde_json::Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    let component = manifest["trigger"]["http"][0]["component"].as_str().unwrap();
    let component = &manifest["component"][component];
    assert_eq!(component["source"], "sessions.wasm");
    assert_eq!(component["key_value_stores"], serde_json::json!(["default"]));
}

/// The variables that a deployment sets exist in the program, and their values are valid.
#[test]
fn what_the_deployments_configure_is_in_order() {
    let dir = temp_dir("deploy-");
    let read = "import json, sys, yaml\n\
                name, text = sys.argv[1], open(sys.argv[1]).read()\n\
                if name.endswith('compose.yaml'):\n\
                \x20   env = yaml.safe_load(text)['services']['edge-session']['environment']\n\
                else:\n\
                \x20   deployment = next(it for it in yaml.safe_load_all(text) if it['kind'] == 'Deployment')\n\
                \x20   container = deployment['spec']['template']['spec']['containers'][0]\n\
                \x20   env = {it['name']: it.get('value') for it in container['env']}\n\
                print(json.dumps(env))";
    for (file, least) in [("compose.yaml", 2), ("kubernetes.yaml", 5)] {
        let file = checkout().join("deploy").join(file);
        let output = python().args(["-c", read]).arg(&file).output().unwrap();
        let env: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        assert!(env.len() >= least);
        let mut launch = Launch::new("mongodb://mongodb:27017/app");
        for (name, value) in &env {
            // Secrets are references.
            match value.as_str().filter(|value| !value.contains("${") && !name.contains("SECRET")) {
                Some(value) => launch = launch.env(name, value),
                None => assert!(
                    ["EDGE_SESSION_SECRET", "EDGE_SESSION_SECRET_FILE", "EDGE_SESSION_STORE"]
                        .contains(&&**name)
                ),
            }
        }
        let (done, said) = launch.run(dir.path(), &["check"]);
        assert!(done, "{}: {said}", file.display());
    }
}

fn read(file: &str) -> String {
    std::fs::read_to_string(checkout().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

#[test]
fn all_packages_have_the_same_version() {
    let cargo = read("Cargo.toml");
    let version = cargo.split("version = \"").nth(1).and_then(|it| it.split('"').next()).unwrap();
    for (file, line, times) in [
        ("Cargo.toml", format!("version = \"{version}\""), 4),
        ("gateways/node/package.json", format!("\"version\": \"{version}\""), 1),
        ("gateways/python/pyproject.toml", format!("version = \"{version}\""), 1),
        ("deploy/kubernetes.yaml", format!("image: edge-session:{version}"), 1),
    ] {
        assert_eq!(read(file).matches(&line).count(), times, "{file}: {line}");
    }
    let lock = read("gateways/node/package-lock.json");
    assert!(lock.lines().take(4).any(|line| line.contains(&format!("\"version\": \"{version}\""))));
}

#[test]
fn what_is_packed_has_no_links_into_the_repository_and_the_same_licences() {
    for readme in [
        "component/README.md",
        "headers/README.md",
        "host/README.md",
        "gateways/node/README.md",
        "gateways/python/README.md",
        "gateways/server/README.md",
    ] {
        let text = read(readme);
        let links = text.split("](").skip(1).map(|it| it.split(')').next().unwrap_or_default());
        for link in links {
            assert!(link.starts_with("https://") || link.starts_with('#'), "{readme}: {link}");
        }
    }
    for licence in ["LICENSE-MIT", "LICENSE-APACHE"] {
        for package in
            ["component", "headers", "host", "gateways/node", "gateways/python", "gateways/server"]
        {
            assert_eq!(read(&format!("{package}/{licence}")), read(licence), "{package}");
        }
    }
}
