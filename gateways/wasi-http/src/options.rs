//! Reads the options from environment variables, named as those of the server.

use edge_session_component::wit::{Problem, Setting, Value};
use edge_session_headers::is_of_kubernetes;

const PREFIX: &str = "EDGE_SESSION_";

/// Returns the settings in these variables.
pub(crate) fn read(environment: &[(String, String)]) -> Vec<Setting> {
    let ours = environment.iter().filter(|(name, _)| !is_of_kubernetes(name));
    let setting = |(name, text): &(String, String)| {
        let name = name.strip_prefix(PREFIX)?.to_owned();
        Some(Setting { name, value: Value::Text(text.clone()) })
    };
    ours.filter_map(setting).collect()
}

/// Returns all problems in one text.
pub(crate) fn explain(problems: &[Problem]) -> String {
    let lines: Vec<_> = problems
        .iter()
        .map(|Problem { name, message }| {
            let name = name.replace('.', "_").to_ascii_uppercase();
            format!("{PREFIX}{name} {message}")
        })
        .collect();
    format!("every request fails until the options are corrected: {}", lines.join("; "))
}

#[cfg(test)]
mod tests {
    use edge_session_component::{Engine, describe};

    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<Engine, String> {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let settings = read(&variables.iter().map(pair).collect::<Vec<_>>());
        Engine::configure(&settings).map_err(|problems| explain(&problems))
    }

    #[test]
    fn without_variables_the_secret_is_missing() {
        let problems = of(&[("PATH", "/bin")]).err().unwrap();
        assert!(problems.contains("EDGE_SESSION_SECRET is missing"), "{problems}");
    }

    #[test]
    fn every_option_has_its_variable() {
        let defaults: Vec<_> = describe()
            .into_iter()
            .map(|option| {
                let value = option.express.trim_matches('"').replace("null", "");
                (format!("EDGE_SESSION_{}", option.name.replace('.', "_")), value)
            })
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| (name.to_ascii_uppercase(), value))
            .collect();
        assert!(defaults.len() > 10);
        let mut variables: Vec<_> =
            defaults.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        variables.push(("EDGE_SESSION_SECRET", "0123456789 newer, 0123456789 older,"));
        // Kubernetes sets these for a service of that name.
        variables.push(("EDGE_SESSION_SERVICE_HOST", "10.0.0.1"));
        variables.push(("EDGE_SESSION_PORT_8080_TCP", "tcp://10.0.0.1:8080"));
        assert!(of(&variables).is_ok());
    }

    #[test]
    fn all_problems_are_told_at_once_and_no_value_is_quoted() {
        let problems = of(&[
            ("EDGE_SESSION_ROLLING", "perhaps"),
            ("EDGE_SESSION_COOKIE_MAX_AGE", "hunter2"),
            ("EDGE_SESSION_SECRETS", "hunter2"),
            ("EDGE_SESSION_STORE_TTL", "0"),
        ])
        .err()
        .unwrap();
        for said in [
            "EDGE_SESSION_ROLLING is not true or false",
            "EDGE_SESSION_COOKIE_MAX_AGE is not a number",
            "EDGE_SESSION_SECRETS is not an option: did you mean secret?",
            "EDGE_SESSION_STORE_TTL must be at least 1",
        ] {
            assert!(problems.contains(said), "{problems}");
        }
        assert!(!problems.contains("hunter2"));
    }

    #[test]
    fn a_comma_inside_a_secret_is_not_taken_for_the_end_of_it() {
        for preset in ["safe", "express"] {
            let of =
                |secret| of(&[("EDGE_SESSION_PRESET", preset), ("EDGE_SESSION_SECRET", secret)]);
            let problem = of("only-for-tests-0123456789-abcdefghij,hunter2").err().unwrap();
            assert!(problem.contains("EDGE_SESSION_SECRET number 2 has 7 bytes"), "{problem}");
            assert!(!problem.contains("hunter2"), "{problem}");
        }
        let short =
            of(&[("EDGE_SESSION_PRESET", "express"), ("EDGE_SESSION_SECRET", "keyboard cat")]);
        assert!(short.is_ok(), "one short secret is nobody's accident");
    }
}
