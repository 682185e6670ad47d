//! The component in wasmtime, and a visitor who comes three times, and then with a forged
//! cookie: `cargo run -p example-embedding SESSION.WASM`.

mod embed;
mod store;

use std::collections::HashMap;
use std::time::UNIX_EPOCH;

use embed::Gateway;
use exports::edge::session::engine;
use rand::{TryRng as _, rngs::SysRng};
use wasi::clocks::wall_clock::Datetime;
use wasmtime::component::{Component, Linker, ResourceAny};
use wasmtime::{Result, Store};

use engine::{Change, Exchange, Known, Preset, Request, Step, StoreReply};

wasmtime::component::bindgen!({ path: "../../wit", world: "session" });

/// The contract's, in the component.
pub struct Engine {
    store: Store<()>,
    component: Session,
    engine: ResourceAny,
}

impl Engine {
    fn open(path: &str, secrets: Vec<Vec<u8>>) -> Result<Self> {
        let runtime = wasmtime::Engine::default();
        let mut linker = Linker::new(&runtime);
        linker.instance("wasi:clocks/wall-clock@0.2.0")?.func_wrap("now", |_, ()| {
            let now = UNIX_EPOCH.elapsed()?;
            Ok((Datetime { seconds: now.as_secs(), nanoseconds: now.subsec_nanos() },))
        })?;
        let mut random = linker.instance("wasi:random/random@0.2.0")?;
        random.func_wrap("get-random-u64", |_, ()| Ok((SysRng.try_next_u64()?,)))?;
        let wasm = Component::from_file(&runtime, path)?;
        let mut store = Store::new(&runtime, ());
        let component = Session::instantiate(&mut store, &wasm, &linker)?;
        let exports = component.edge_session_engine();
        let mut options = exports.call_defaults(&mut store, Preset::Safe)?;
        options.secrets = secrets;
        let opened = exports.call_open(&mut store, &options)?;
        let engine = opened.expect("these options are good"); // else all that is wrong with them
        Ok(Self { store, component, engine })
    }

    fn begin(&mut self, request: &Request) -> Result<Step> {
        let exports = self.component.edge_session_engine();
        exports.engine().call_begin(&mut self.store, self.engine, request)
    }

    fn finish(&mut self, exchange: &Exchange, known: &Known, change: &Change) -> Result<Step> {
        let exports = self.component.edge_session_engine();
        exports.engine().call_finish(&mut self.store, self.engine, exchange, known, change)
    }

    fn resume(
        &mut self,
        exchange: &Exchange,
        known: &Known,
        change: Option<&Change>,
        reply: &StoreReply,
    ) -> Result<Step> {
        let exports = self.component.edge_session_engine();
        exports.engine().call_resume(&mut self.store, self.engine, exchange, known, change, reply)
    }
}

fn main() -> Result<()> {
    let path = std::env::args().nth(1).expect("an argument names session.wasm");
    let secrets = vec![b"only for this example: 32 bytes or more".to_vec()];
    let engine = Engine::open(&path, secrets)?;
    let mut gateway = Gateway { engine, sessions: HashMap::new() };

    let mut cookie = Vec::new();
    for _ in 0..3 {
        let (page, outcome) = gateway.visit(cookie.clone())?;
        println!("{}", page.unwrap_or_default());
        if let Some(set_cookie) = outcome.set_cookie {
            cookie = vec![set_cookie.split(';').next().unwrap_or_default().into()];
        }
    }
    let forged = String::from_utf8_lossy(&cookie[0]).replace("s%3A", "s%3Ax");
    println!("{}", gateway.visit(vec![forged.into()])?.0.unwrap_or_default());
    Ok(())
}
