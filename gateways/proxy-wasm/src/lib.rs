//! Sessions inside a gateway that runs proxy-wasm modules: `filter.wasm`, for Envoy, Istio's
//! WasmPlugin, Higress and APISIX.
//!
//! The rules are those of `session.wasm`: the same sources, linked in, but not the same bytes, since
//! proxy-wasm knows no components. The application uses the same headers as behind the reverse
//! proxy. Store operations are HTTP calls to an edge-session (`auth.listen`, `/store`), while the
//! request or the response waits.
//!
//! | module | its job |
//! |---|---|
//! | `settings` | the plugin's configuration |
//! | `visit` | a request: the loop that every gateway runs, in the steps of proxy-wasm |
//! | `store` | store operations as HTTP calls |
//! | `change` | applies an application's answer to the session's data (shared with `wasi-http`) |
//! | `host` | the clock and the randomness of the gateway |
#![cfg_attr(not(target_arch = "wasm32"), allow(dead_code))]

#[path = "../../wasi-http/src/change.rs"]
mod change;
mod host;
mod settings;
mod store;
mod visit;

use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{ContextType, LogLevel};

use settings::Settings;
use visit::Visit;

/// One worker's plugin.
#[derive(Default)]
struct Plugin {
    settings: Option<Rc<Settings>>,
}

impl Context for Plugin {}

impl RootContext for Plugin {
    fn on_configure(&mut self, _: usize) -> bool {
        let text = self.get_plugin_configuration().unwrap_or_default();
        match Settings::read(text.as_slice()) {
            Ok(settings) => {
                self.settings = Some(Rc::new(settings));
                true
            }
            Err(problems) => {
                log(LogLevel::Error, &format!("the configuration is not valid: {problems}"));
                false
            }
        }
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Visit::new(self.settings.clone()?)))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

/// Writes a line to the gateway's log.
fn log(level: LogLevel, text: &str) {
    // Without a log there is nowhere to say so.
    let _ = proxy_wasm::hostcalls::log(level, &format!("edge-session: {text}"));
}

#[cfg(target_arch = "wasm32")]
mod export {
    #![allow(unsafe_code, missing_docs, reason = "exports the symbols of proxy-wasm")]

    proxy_wasm::main! {{
        proxy_wasm::set_root_context(|_| Box::<super::Plugin>::default());
    }}
}
