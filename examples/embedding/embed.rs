//! Visits, counted by session.wasm in wasmtime: `cargo run -p example-embedding SESSION.WASM`.

use std::collections::HashMap;
use std::time::{Duration, UNIX_EPOCH};

use exports::edge::session::engine::*;
use rand::{TryRng as _, rngs::SysRng};
use wasi::clocks::wall_clock::Datetime;
use wasmtime::component::{Component, Linker, ResourceAny};
use wasmtime::{Engine, Result, Store};

wasmtime::component::bindgen!({ path: "../../wit", world: "session" });

struct Gateway {
    store: Store<()>,
    component: Session,
    engine: ResourceAny,
    sessions: HashMap<String, Stored>,
}

fn now() -> Duration {
    UNIX_EPOCH.elapsed().unwrap_or_default()
}

impl Gateway {
    /// The five store operations, on a map.
    fn perform(&mut self, request: StoreRequest, id: &str, known: &mut Known) -> StoreReply {
        use StoreRequest::{Create, Delete, Load, Replace, Touch};
        self.sessions.retain(|_, it| it.expires > Some(now().as_millis() as u64));
        let found = self.sessions.get(id).cloned();
        let last = known.current.as_ref().or(known.loaded.as_ref());
        let is_known = found.as_ref().map(|it| &it.data) == last.map(|it| &it.data);
        let (data, expires) = match (request, found) {
            (Load, Some(found)) => {
                known.loaded = Some(found);
                return StoreReply::Found;
            }
            (Create(_), Some(_)) => return StoreReply::Taken,
            (Load | Touch(_) | Delete(_), None) => return StoreReply::Missing,
            (Replace(Replacement { only_known: true, .. }), None) => return StoreReply::Missing,
            (Delete(true) | Replace(Replacement { only_known: true, .. }), found) if !is_known => {
                known.current = found;
                return StoreReply::Conflict;
            }
            (Delete(_), _) => {
                self.sessions.remove(id);
                return StoreReply::Done;
            }
            (Touch(expires), Some(found)) => (found.data, expires),
            (Create(new) | Replace(Replacement { content: new, .. }), _) => (new.data, new.expires),
        };
        self.sessions.insert(id.to_owned(), Stored { data, expires: Some(expires), touched: None });
        StoreReply::Done
    }

    /// The loop, up to `ready` or `done`.
    fn run(&mut self, mut step: Step, known: &mut Known, change: Option<&Change>) -> Result<Step> {
        while let Step::Store(Pending { request, exchange, on_done }) = step {
            let reply = self.perform(request, &exchange.id, known);
            let engine = self.component.edge_session_engine().engine();
            step = match (&reply, on_done) {
                (StoreReply::Done, Some(outcome)) => Step::Done(outcome),
                _ => {
                    let store = &mut self.store;
                    engine.call_resume(store, self.engine, &exchange, known, change, &reply)?
                }
            };
        }
        Ok(step)
    }

    /// One request, from its Cookie header to its Set-Cookie.
    fn visit(&mut self, cookie: Option<&str>) -> Result<(u64, Origin, Option<String>)> {
        let cookies = cookie.map(|it| it.as_bytes().to_vec()).into_iter().collect();
        let (path, tls, secure, forwarded_proto) = ("/".to_owned(), false, false, None);
        let request = Request { cookies, path, tls, secure, forwarded_proto };
        let known = &mut Known { loaded: None, current: None };
        let engine = self.component.edge_session_engine().engine();
        let step = engine.call_begin(&mut self.store, self.engine, &request)?;
        let Step::Ready(session) = self.run(step, known, None)? else { panic!("no session here") };

        let data: serde_json::Value = serde_json::from_str(&session.data)?;
        let visits = data["visits"].as_u64().unwrap_or(0) + 1;
        let edit = Edit { key: "visits".to_owned(), value: Some(visits.to_string()) };
        let data = DataChange::Edits(vec![edit]);
        let change = Change { action: Action::Keep, data, cookie: vec![] };

        let (engine, exchange) = (self.component.edge_session_engine().engine(), session.exchange);
        let step = engine.call_finish(&mut self.store, self.engine, &exchange, known, &change)?;
        let Step::Done(outcome) = self.run(step, known, Some(&change))? else { unreachable!() };
        Ok((visits, exchange.origin, outcome.set_cookie))
    }
}

fn main() -> Result<()> {
    let runtime = Engine::default();
    let mut linker = Linker::new(&runtime);
    linker.instance("wasi:clocks/wall-clock@0.2.0")?.func_wrap("now", |_, ()| {
        let now = now();
        Ok((Datetime { seconds: now.as_secs(), nanoseconds: now.subsec_nanos() },))
    })?;
    let mut random = linker.instance("wasi:random/random@0.2.0")?;
    random.func_wrap("get-random-u64", |_, ()| Ok((SysRng.try_next_u64()?,)))?;
    let path = std::env::args().nth(1).expect("an argument names session.wasm");
    let wasm = Component::from_file(&runtime, path)?;
    let mut store = Store::new(&runtime, ());
    let component = Session::instantiate(&mut store, &wasm, &linker)?;
    let mut options = component.edge_session_engine().call_defaults(&mut store, Preset::Safe)?;
    options.secrets = vec![b"only for this example: 32 bytes or more".to_vec()];
    let opened = component.edge_session_engine().call_open(&mut store, &options)?;
    let engine = opened.expect("these options are good"); // else all that is wrong with them
    let mut gateway = Gateway { store, component, engine, sessions: HashMap::new() };

    let mut cookie: Option<String> = None;
    for _ in 0..3 {
        let (visits, _, set_cookie) = gateway.visit(cookie.as_deref())?;
        println!("{visits}");
        cookie = set_cookie.or(cookie).map(|it| it.split(';').next().unwrap_or("").to_owned());
    }
    let forged = cookie.unwrap_or_default().replace("s%3A", "s%3Ax");
    if let Origin::Forged = gateway.visit(Some(&forged))?.1 {
        println!("forged");
    }
    Ok(())
}
