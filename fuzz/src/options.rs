//! The middleware's options, which come from its environment.

#[path = "../../gateways/wasi-http/src/options.rs"]
mod source;

use edge_session_component::Engine;

/// Takes variables, one per line: `NAME=VALUE`, without the prefix `EDGE_SESSION_`.
pub fn environment(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let variable = |line: &str| {
        let (name, value) = line.split_once('=')?;
        Some((format!("EDGE_SESSION_{name}"), value.to_owned()))
    };
    let variables: Vec<_> = text.lines().filter_map(variable).collect();
    let Ok(options) = source::read(&variables) else { return };
    let name = options.name.clone();
    match Engine::open(options) {
        Ok(engine) => crate::component::check_new_cookie(&engine, &name),
        Err(problems) => assert!(!source::explain(&problems).is_empty()),
    }
}
