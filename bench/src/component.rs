//! The component's cost per request, compared with the same source compiled natively: one thread,
//! immediate store replies, no HTTP.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::hint::black_box;
use std::time::{Instant, SystemTime};

use edge_session::bench::Runner;
use edge_session::{CodeCache, Component, Options, Preset};
use rand::rngs::{StdRng, SysRng};
use rand::{RngExt as _, SeedableRng as _};

use crate::{Effort, Result, SECRET, component_path, median, say};

/// The measured cases. The last two are the first part of `CHANGED`.
const NAMES: [&str; 6] = [
    "new visitor, one value set",
    "returning visitor, one value changed",
    "returning visitor, nothing changed",
    "forged cookie",
    "begin",
    "begin and resume",
];
const CHANGED: usize = 1;
const BEGIN: usize = 4;
const RESUME: usize = 5;

/// A case: performs one request. Panics if the result is not the one in its name.
type Case = Box<dyn Fn()>;

pub(crate) fn measure(effort: &Effort) -> Result<String> {
    let path = component_path();
    let directory = tempfile::tempdir()?;
    say("loading the component …");
    let compiling = times(effort.batches / 10, || Component::from_file(&path, None).map(drop))?;
    let cache = CodeCache::open(directory.path())?;
    let cached = || Component::from_file(&path, Some(&cache));
    let component = cached()?;
    let loading = times(effort.batches / 2, || cached().map(drop))?;
    let options = Options { secrets: vec![SECRET.to_vec()], ..component.defaults(Preset::Safe)? };
    let opening = times(effort.batches * 4, || component.check(&options))?;

    let mut native_options = edge_session_component::defaults(native::wit::Preset::Safe);
    native_options.secrets = vec![SECRET.to_vec()];
    let native = native::cases(native::open(native_options)?)?;
    let wasm = wasm::cases(Runner::open(component, options)?)?;
    let mut figures = Vec::new();
    for (case, name) in NAMES.iter().enumerate() {
        let figure = compare(effort, &native[case], &wasm[case]);
        say(format!("{name}: native {:.0} ns, component {:.0} ns", figure.native, figure.wasm));
        figures.push(figure);
    }

    let mut table = String::from(
        "### The component beside native code\n\n\
         | one request | native | component | ratio |\n|---|--:|--:|--:|\n",
    );
    let mut row = |name: &str, native: f64, wasm: f64| {
        writeln!(table, "| {name} | {native:.0} ns | {wasm:.0} ns | {:.1} |", wasm / native)
    };
    for (name, figure) in NAMES.iter().zip(&figures).take(BEGIN) {
        row(name, figure.native, figure.wasm)?;
    }
    let [changed, begin, resume] = [CHANGED, BEGIN, RESUME].map(|case| &figures[case]);
    let of = "… of the changed one:";
    row(&format!("{of} `begin`"), begin.native, begin.wasm)?;
    row(&format!("{of} `resume`"), resume.native - begin.native, resume.wasm - begin.wasm)?;
    row(&format!("{of} `finish`"), changed.native - resume.native, changed.wasm - resume.wasm)?;
    write!(
        table,
        "\n| once | |\n|---|--:|\n\
         | load and compile the component | {compiling:.1} ms |\n\
         | load it from the cache of compiled code | {loading:.2} ms |\n\
         | make an instance and open its engine | {opening:.3} ms |\n"
    )?;
    Ok(table)
}

/// Nanoseconds per request.
struct Figure {
    native: f64,
    wasm: f64,
}

/// Measures in the order native, wasm, wasm, native, so that changes in the machine's speed favour
/// neither.
fn compare(effort: &Effort, native: &Case, wasm: &Case) -> Figure {
    let counts = [native, wasm].map(|case| {
        let mut count = 0;
        let began = Instant::now();
        while began.elapsed() < effort.batch * 2 {
            case();
            count += 1;
        }
        count / 2
    });
    let mut nanoseconds = [Vec::new(), Vec::new()];
    for round in 0..effort.batches {
        let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        for which in order {
            let case = [native, wasm][which];
            let began = Instant::now();
            for _ in 0..counts[which] {
                case();
            }
            nanoseconds[which].push(began.elapsed().as_nanos() as f64 / f64::from(counts[which]));
        }
    }
    let [native, wasm] = nanoseconds.map(|values| median(&values));
    Figure { native, wasm }
}

/// Returns the median duration of `run` over `count` runs, in milliseconds.
fn times<E: std::error::Error + 'static>(
    count: usize,
    run: impl Fn() -> std::result::Result<(), E>,
) -> Result<f64> {
    let mut milliseconds = Vec::new();
    for _ in 0..count {
        let began = Instant::now();
        run()?;
        milliseconds.push(began.elapsed().as_secs_f64() * 1e3);
    }
    Ok(median(&milliseconds))
}

/// The cases for either side: their types are alike, but generated separately.
macro_rules! cases {
    () => {
        pub(super) fn cases(logic: Logic) -> Result<[Case; 6]> {
            let nothing = || change(wit::DataChange::Nothing);
            let counts = |to: u32| {
                let value = Some(to.to_string());
                change(wit::DataChange::Edits(vec![wit::Edit { key: "viewCount".into(), value }]))
            };
            let (content, outcome) = match first_visit(&logic, &request(None), &counts(1)) {
                Some((wit::StoreRequest::Create(content), Some(outcome))) => (content, outcome),
                other => return Err(format!("a first visit ended with {other:?}").into()),
            };
            let first =
                wit::Stored { data: content.data, expires: Some(content.expires), touched: None };
            let known = wit::Known { loaded: Some(first), current: None };
            let set_cookie = outcome.set_cookie.unwrap_or_default();
            let cookie = set_cookie.split(';').next().unwrap_or_default().to_owned();
            let (before, id) = cookie.split_once("s%3A").ok_or("no signed cookie was set")?;
            let other = if id.starts_with('A') { 'B' } else { 'A' };
            let forged = format!("{before}s%3A{other}{}", &id[1..]);
            let (new, one) = (request(None), counts(1));
            let (returning, two) = (request(Some(&cookie)), counts(2));
            let forged = request(Some(&forged));
            let logic = std::rc::Rc::new(logic);
            let with = |run: fn(&Logic, &wit::Request, &wit::Known, &wit::Change),
                        request: &wit::Request,
                        change: wit::Change|
             -> Case {
                let (logic, request, known) = (logic.clone(), request.clone(), known.clone());
                Box::new(move || run(&logic, &request, &known, &change))
            };
            Ok([
                with(
                    |logic, request, _, change| match first_visit(logic, request, change) {
                        Some((wit::StoreRequest::Create(_), Some(_))) => {}
                        other => panic!("a first visit ended with {other:?}"),
                    },
                    &new,
                    one,
                ),
                with(
                    |logic, request, known, change| match logic.finish(
                        loaded(logic, request, known),
                        known,
                        change,
                    ) {
                        wit::Step::Store(wit::Pending {
                            request: wit::StoreRequest::Replace(_),
                            on_done: Some(_),
                            ..
                        }) => {}
                        other => panic!("a changing visit ended with {other:?}"),
                    },
                    &returning,
                    two,
                ),
                with(
                    |logic, request, known, change| match logic.finish(
                        loaded(logic, request, known),
                        known,
                        change,
                    ) {
                        wit::Step::Store(wit::Pending {
                            request: wit::StoreRequest::Touch(_),
                            on_done: Some(_),
                            ..
                        }) => {}
                        other => panic!("an unchanging visit ended with {other:?}"),
                    },
                    &returning,
                    nothing(),
                ),
                with(
                    |logic, request, _, change| {
                        let exchange = ready(logic.begin(request));
                        assert_eq!(exchange.origin, wit::Origin::Forged);
                        match logic.finish(exchange, &UNKNOWN, change) {
                            wit::Step::Done(_) => {}
                            other => panic!("a forged cookie ended with {other:?}"),
                        }
                    },
                    &forged,
                    nothing(),
                ),
                with(
                    |logic, request, _, _| match logic.begin(request) {
                        wit::Step::Store(pending) => drop(black_box(pending)),
                        other => panic!("a returning visitor began with {other:?}"),
                    },
                    &returning,
                    nothing(),
                ),
                with(
                    |logic, request, known, _| drop(black_box(loaded(logic, request, known))),
                    &returning,
                    nothing(),
                ),
            ])
        }

        const UNKNOWN: wit::Known = wit::Known { loaded: None, current: None };

        fn request(cookie: Option<&str>) -> wit::Request {
            wit::Request {
                cookies: cookie.iter().map(|cookie| cookie.as_bytes().to_vec()).collect(),
                path: "/".to_owned(),
                tls: false,
                secure: false,
                forwarded_proto: None,
            }
        }

        fn change(data: wit::DataChange) -> wit::Change {
            wit::Change { action: wit::Action::Keep, data, cookie: Vec::new() }
        }

        fn ready(step: wit::Step) -> wit::Exchange {
            match step {
                wit::Step::Ready(session) => black_box(session).exchange,
                other => panic!("not ready: {other:?}"),
            }
        }

        fn first_visit(
            logic: &Logic,
            request: &wit::Request,
            change: &wit::Change,
        ) -> Option<(wit::StoreRequest, Option<wit::Outcome>)> {
            match logic.finish(ready(logic.begin(request)), &UNKNOWN, change) {
                wit::Step::Store(pending) => Some((pending.request, pending.on_done)),
                _ => None,
            }
        }

        fn loaded(logic: &Logic, request: &wit::Request, known: &wit::Known) -> wit::Exchange {
            let exchange = match logic.begin(request) {
                wit::Step::Store(pending) => pending.exchange,
                other => panic!("a returning visitor began with {other:?}"),
            };
            ready(logic.resume(exchange, known))
        }
    };
}

mod native {
    pub(super) use edge_session_component::wit;
    use edge_session_component::{Engine, Environment};

    use super::*;

    /// The clock and the random source that the host provides to the component.
    struct Native(RefCell<StdRng>);

    impl Environment for Native {
        fn now(&self) -> u64 {
            let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            since.map_or(0, |since| since.as_millis() as u64)
        }

        fn random(&self) -> [u8; 24] {
            self.0.borrow_mut().random()
        }
    }

    pub(super) struct Logic {
        engine: Engine,
        environment: Native,
    }

    pub(super) fn open(options: wit::Options) -> Result<Logic> {
        let engine = Engine::open(options).map_err(|problems| format!("{problems:?}"))?;
        let random = StdRng::try_from_rng(&mut SysRng)?;
        Ok(Logic { engine, environment: Native(RefCell::new(random)) })
    }

    impl Logic {
        fn begin(&self, request: &wit::Request) -> wit::Step {
            self.engine.begin(&self.environment, request)
        }

        fn resume(&self, exchange: wit::Exchange, known: &wit::Known) -> wit::Step {
            let reply = wit::StoreReply::Found;
            self.engine.resume(&self.environment, exchange, known, None, reply)
        }

        fn finish(
            &self,
            exchange: wit::Exchange,
            known: &wit::Known,
            change: &wit::Change,
        ) -> wit::Step {
            self.engine.finish(&self.environment, exchange, known, change)
        }
    }

    cases!();
}

mod wasm {
    use edge_session::bench::wit;

    use super::*;

    pub(super) type Logic = Runner;

    cases!();
}
