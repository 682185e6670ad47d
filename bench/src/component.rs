//! The component's cost per request, compared with the same source compiled natively: one thread,
//! immediate store replies, no HTTP.

use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use edge_session::bench::{Runner, wit};
use edge_session::{CodeCache, Component, Native, Options};

use crate::{Effort, Result, SECRET, component_path, median, say};

/// The measured cases. The last two are the first part of `CHANGED`.
const NAMES: [&str; 6] = [
    "new visitor, one value set",
    "returning visitor, one value changed",
    "returning visitor, nothing changed",
    "forged cookie",
    "begin",
    "begin and loaded",
];
const CHANGED: usize = 1;
const BEGIN: usize = 4;
const LOADED: usize = 5;

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
    let mut options = Options::default();
    // The returning visitor whose session does not change is touched.
    options.secret(SECRET).set("store.touch_after", 0);
    let opening = times(effort.batches * 4, || component.check(&options).map(drop))?;

    let native = cases(Runner::open(Native::default(), &options)?)?;
    let wasm = cases(Runner::open(component, &options)?)?;
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
    let [changed, begin, loaded] = [CHANGED, BEGIN, LOADED].map(|case| &figures[case]);
    let of = "… of the changed one:";
    row(&format!("{of} `begin`"), begin.native, begin.wasm)?;
    row(&format!("{of} `loaded`"), loaded.native - begin.native, loaded.wasm - begin.wasm)?;
    row(&format!("{of} `finish`"), changed.native - loaded.native, changed.wasm - loaded.wasm)?;
    write!(
        table,
        "\n| once | |\n|---|--:|\n\
         | load and compile the component | {compiling:.1} ms |\n\
         | load it from the cache of compiled code | {loading:.2} ms |\n\
         | make an instance and configure it | {opening:.3} ms |\n"
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

/// The session in the store.
type Known = Arc<wit::Stored>;

fn cases(logic: Runner) -> Result<[Case; 6]> {
    let nothing = || change(wit::DataChange::Nothing);
    let counts = |to: u32| {
        let value = Some(to.to_string());
        change(wit::DataChange::Edits(vec![wit::Edit { key: "viewCount".into(), value }]))
    };
    let plan = first_visit(&logic, &request(None), &Arc::new(counts(1)));
    let [wit::Write { operation: wit::Operation::Create(content), .. }] = &*plan.writes else {
        return Err(format!("a first visit ended with {plan:?}").into());
    };
    let (data, expires) = (content.data.clone(), Some(content.expires));
    let known = Arc::new(wit::Stored { data, expires, touched: None });
    let set_cookie = plan.outcome.set_cookie.unwrap_or_default();
    let cookie = set_cookie.split(';').next().unwrap_or_default().to_owned();
    let (before, id) = cookie.split_once("s%3A").ok_or("no signed cookie was set")?;
    let other = if id.starts_with('A') { 'B' } else { 'A' };
    let forged = format!("{before}s%3A{other}{}", &id[1..]);
    let (new, one) = (request(None), counts(1));
    let (returning, two) = (request(Some(&cookie)), counts(2));
    let forged = request(Some(&forged));
    let logic = std::rc::Rc::new(logic);
    let with = |run: fn(&Runner, &wit::Request, &Known, &Arc<wit::Change>),
                request: &wit::Request,
                change: wit::Change|
     -> Case {
        let (logic, request, known) = (logic.clone(), request.clone(), known.clone());
        let change = Arc::new(change);
        Box::new(move || run(&logic, &request, &known, &change))
    };
    Ok([
        with(
            |logic, request, _, change| {
                let plan = first_visit(logic, request, change);
                assert!(matches!(plan.writes[0].operation, wit::Operation::Create(_)));
            },
            &new,
            one,
        ),
        with(
            |logic, request, known, change| {
                let plan = finish(logic, loaded(logic, request, known), Some(known), change);
                assert!(matches!(plan.writes[0].operation, wit::Operation::Replace(_)));
            },
            &returning,
            two,
        ),
        with(
            |logic, request, known, change| {
                let plan = finish(logic, loaded(logic, request, known), Some(known), change);
                assert!(matches!(plan.writes[0].operation, wit::Operation::Touch(_)));
            },
            &returning,
            nothing(),
        ),
        with(
            |logic, request, _, change| {
                let session = ready(begin(logic, request));
                assert_eq!(session.origin, wit::Origin::Forged);
                assert!(finish(logic, session.visit, None, change).writes.is_empty());
            },
            &forged,
            nothing(),
        ),
        with(
            |logic, request, _, _| match begin(logic, request) {
                wit::Beginning::Load(visit) => drop(black_box(visit)),
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

fn request(cookie: Option<&str>) -> wit::Request {
    wit::Request {
        cookies: cookie.unwrap_or_default().into(),
        path: "/".to_owned(),
        tls: false,
        secure: false,
        forwarded_proto: None,
    }
}

fn change(data: wit::DataChange) -> wit::Change {
    wit::Change { action: wit::Action::Keep, data, cookie: Vec::new() }
}

fn ready(beginning: wit::Beginning) -> wit::Session {
    match beginning {
        wit::Beginning::Ready(session) => black_box(session),
        other => panic!("not ready: {other:?}"),
    }
}

fn first_visit(logic: &Runner, request: &wit::Request, change: &Arc<wit::Change>) -> wit::Plan {
    black_box(finish(logic, ready(begin(logic, request)).visit, None, change))
}

fn loaded(logic: &Runner, request: &wit::Request, known: &Known) -> wit::Visit {
    match begin(logic, request) {
        wit::Beginning::Load(visit) => {
            ready(logic.loaded(visit, Ok(Some(known.clone()))).expect(SUCCEEDED)).visit
        }
        other => panic!("a returning visitor began with {other:?}"),
    }
}

const SUCCEEDED: &str = "the request succeeds";

fn begin(logic: &Runner, request: &wit::Request) -> wit::Beginning {
    logic.begin(request.clone()).expect(SUCCEEDED)
}

fn finish(
    logic: &Runner,
    visit: wit::Visit,
    stored: Option<&Known>,
    change: &Arc<wit::Change>,
) -> wit::Plan {
    logic.finish(visit, stored.cloned(), change.clone()).expect(SUCCEEDED)
}
