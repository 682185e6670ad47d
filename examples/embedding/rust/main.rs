//! The component in wasmtime, and a visitor who comes three times, and then with a forged
//! cookie: `cargo run -p example-embedding SESSION.WASM`.

mod embed;
mod store;

use std::time::UNIX_EPOCH;

use exports::edge::session::engine;
use rand::{TryRng as _, rngs::SysRng};
use wasi::clocks::wall_clock::Datetime;
use wasmtime::component::{Component, Linker};
use wasmtime::{Error, Result, Store};

use embed::serve;
use engine::{
    Action, Beginning, Change, DataChange, Edit, Failure, Obstacle, Plan, Request, Setting, Stored,
    Value, Visit,
};
use store::Sessions;

wasmtime::component::bindgen!({ path: "../../wit", world: "session" });

/// The contract's engine, in the component.
pub struct Engine {
    store: Store<()>,
    component: Session,
}

impl Engine {
    fn open(path: &str, secret: &[u8]) -> Result<Self> {
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
        let secret = Setting { name: "secret".to_owned(), value: Value::Bytes(secret.to_vec()) };
        let configured = component.edge_session_engine().call_configure(&mut store, &[secret])?;
        configured.expect("these options are good"); // else all that is wrong with them
        Ok(Self { store, component })
    }

    fn begin(&mut self, request: &Request) -> Result<Beginning> {
        let exports = self.component.edge_session_engine();
        exports.call_begin(&mut self.store, request)?.map_err(failed)
    }

    fn loaded(&mut self, visit: &Visit, stored: &Option<Stored>) -> Result<Beginning> {
        let exports = self.component.edge_session_engine();
        exports.call_loaded(&mut self.store, visit, Ok(stored.as_ref()))?.map_err(failed)
    }

    fn finish(&mut self, visit: &Visit, stored: &Option<Stored>, change: &Change) -> Result<Plan> {
        let exports = self.component.edge_session_engine();
        exports.call_finish(&mut self.store, visit, stored.as_ref(), change)?.map_err(failed)
    }

    fn resume(
        &mut self,
        visit: &Visit,
        stored: &Option<Stored>,
        change: &Change,
        at: usize,
        obstacle: &Obstacle,
    ) -> Result<Plan> {
        let (store, at) = (&mut self.store, at as u32);
        let exports = self.component.edge_session_engine();
        let stored = stored.as_ref();
        exports.call_resume(store, visit, stored, change, at, obstacle)?.map_err(failed)
    }
}

/// The response to a request that fails: `reason` is for the log.
fn failed(Failure { status, message, reason, .. }: Failure) -> Error {
    Error::msg(format!("{status} {message} ({reason})"))
}

/// The application: a view counter. Returns its page and its change.
fn count(text: &str) -> (String, Change) {
    let session: serde_json::Value = serde_json::from_str(text).expect("a session is JSON");
    let visits = session["visits"].as_u64().unwrap_or(0) + 1;
    let edits = vec![Edit { key: "visits".to_owned(), value: Some(visits.to_string()) }];
    let data = DataChange::Edits(edits);
    (format!("{visits} visits"), Change { action: Action::Keep, data, cookie: vec![] })
}

fn main() -> Result<()> {
    let path = std::env::args().nth(1).expect("an argument names session.wasm");
    let mut engine = Engine::open(&path, b"only for this example: 32 bytes or more")?;
    let mut sessions = Sessions::default();

    let mut cookie = String::new();
    for visit in 0..4 {
        if visit == 3 {
            cookie = cookie.replace("s%3A", "s%3Ax"); // forged
        }
        let cookies = cookie.clone().into_bytes();
        let (path, tls, secure, forwarded_proto) = ("/".to_owned(), false, false, None);
        let request = Request { cookies, path, tls, secure, forwarded_proto };
        let mut page = String::new();
        let outcome = serve((&mut engine, &mut sessions), &request, |text| {
            let (counted, change) = count(text);
            page = counted;
            change
        })?;
        println!("{page}");
        if let Some(set_cookie) = outcome.and_then(|it| it.set_cookie) {
            cookie = set_cookie.split(';').next().unwrap_or_default().to_owned();
        }
    }
    Ok(())
}
