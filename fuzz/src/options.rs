//! The middleware's options, which come from its environment.

#[path = "../../gateways/wasi-http/src/options.rs"]
mod source;

use edge_session_component::Engine;
use edge_session_component::wit::Value;

/// Takes variables, one per line: `NAME=VALUE`, without the prefix `EDGE_SESSION_`.
pub fn environment(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let variable = |line: &str| {
        let (name, value) = line.split_once('=')?;
        Some((format!("EDGE_SESSION_{name}"), value.to_owned()))
    };
    let variables: Vec<_> = text.lines().filter_map(variable).collect();
    match Engine::configure(&source::read(&variables)) {
        Ok(engine) => {
            let in_force = engine.in_force();
            let name = in_force.iter().find(|it| it.name == "name").map(|it| &it.value);
            let Some(Value::Json(name)) = name else { panic!("there is a name") };
            let name: String = serde_json::from_str(name).expect("it is text");
            crate::component::check_new_cookie(&engine, &name);
        }
        Err(problems) => assert!(!source::explain(&problems).is_empty()),
    }
}
