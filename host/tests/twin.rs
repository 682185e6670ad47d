//! The component and the native code decide the same, byte for byte, whatever the input.
//!
//! `EDGE_SESSION_TWINS=1000000` compares so many inputs.
#![cfg(all(feature = "bench", feature = "native"))]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use edge_session::bench::{Runner, wit};
use edge_session::{Component, Logic, Native, Options};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use wit::{
    Action, Beginning, Change, DataChange, Edit, Obstacle, Operation, Plan, Request, Stored, Visit,
};

const START: u64 = 1_893_456_000_000;

/// Both implementations of the same options.
struct Twins {
    component: Runner,
    native: Runner,
    count: usize,
}

impl Twins {
    fn open(options: &Options, clock: &Arc<AtomicU64>) -> Self {
        let now = |clock: &Arc<AtomicU64>| {
            let clock = clock.clone();
            move || SystemTime::UNIX_EPOCH + Duration::from_millis(clock.load(Ordering::Relaxed))
        };
        let component = Component::bundled().unwrap().with_clock(now(clock));
        let open = |logic: Logic| Runner::open(logic.with_seed(7), options).unwrap();
        Self {
            component: open(component.into()),
            native: open(Native::with_clock(now(clock)).into()),
            count: 0,
        }
    }

    /// Makes the same call to both, and compares the answers.
    fn both<T: PartialEq + std::fmt::Debug>(&mut self, call: impl Fn(&Runner) -> T) -> T {
        self.count += 1;
        let (one, other) = (call(&self.component), call(&self.native));
        assert_eq!(one, other);
        one
    }
}

/// Pieces of which texts are made.
const PIECES: [&str; 24] = [
    "{",
    "}",
    "[",
    "]",
    "\"",
    ",",
    ":",
    "null",
    "true",
    "1",
    "-0.5e3",
    "\\u00e9",
    "\\ud800",
    "é",
    " ",
    "\"a\":",
    "\"cookie\":",
    "\"7\":",
    "{\"originalMaxAge\":60000,\"expires\":null}",
    "\"id\":1",
    "\u{1F600}",
    "\"originalMaxAge\":\"1h\"",
    "\\",
    "\n",
];

fn garbage(rng: &mut StdRng, most: usize) -> String {
    (0..rng.random_range(0..most)).map(|_| PIECES[rng.random_range(0..PIECES.len())]).collect()
}

/// Returns a text with one character changed, often none.
fn spoilt(rng: &mut StdRng, text: &str) -> String {
    let mut text = text.to_owned();
    if rng.random_bool(0.15) {
        let ends: Vec<_> = text.char_indices().map(|(at, _)| at).collect();
        if let Some(at) = ends.get(rng.random_range(0..ends.len().max(1))).copied() {
            let end = at + text[at..].chars().next().map_or(0, char::len_utf8);
            text.replace_range(at..end, PIECES[rng.random_range(0..PIECES.len())]);
        }
    }
    text
}

fn value(rng: &mut StdRng) -> String {
    match rng.random_range(0..6) {
        0 => rng.random_range(-9..99).to_string(),
        1 => "\"text\"".to_owned(),
        2 => "{\"x\":[1,2.50,\"é\"]}".to_owned(),
        3 => "1e2".to_owned(),
        4 => "null".to_owned(),
        _ => garbage(rng, 5),
    }
}

fn change(rng: &mut StdRng) -> Change {
    const KEYS: [&str; 8] = ["a", "b", "7", "07", "cookie", "__proto__", "é\"", "viewCount"];
    const SETTINGS: [&str; 6] = ["maxAge", "expires", "path", "domain", "sameSite", "secure"];
    let edit = |rng: &mut StdRng, keys: &[&str]| Edit {
        key: keys[rng.random_range(0..keys.len())].to_owned(),
        value: rng.random_bool(0.8).then(|| value(rng)),
    };
    let data = match rng.random_range(0..8) {
        0..3 => DataChange::Nothing,
        3..6 => {
            let count = rng.random_range(1..4);
            DataChange::Edits((0..count).map(|_| edit(rng, &KEYS)).collect())
        }
        6 => DataChange::Whole(format!("{{\"b\":{},\"a\":1}}", value(rng))),
        _ => DataChange::Whole(garbage(rng, 9)),
    };
    let cookie = match rng.random_range(0..6) {
        0 => vec![edit(rng, &SETTINGS)],
        _ => Vec::new(),
    };
    let actions = [
        Action::Keep,
        Action::Keep,
        Action::Renew,
        Action::Regenerate,
        Action::Destroy,
        Action::Unset,
    ];
    Change { action: actions[rng.random_range(0..actions.len())], data, cookie }
}

/// Plays one request with a store that answers at random.
fn play(twins: &mut Twins, rng: &mut StdRng, cookie: &mut String, text: &mut String) {
    let cookies = match rng.random_range(0..8) {
        0 => String::new(),
        1 => format!("connect.sid={}", garbage(rng, 9)),
        2 => format!("connect.sid=s%3Aa.b; {}", spoilt(rng, cookie)),
        _ => spoilt(rng, cookie),
    };
    let request = Request {
        cookies: cookies.into_bytes(),
        path: ["/", "/app/x", ""][rng.random_range(0..3)].to_owned(),
        tls: rng.random_bool(0.2),
        secure: rng.random_bool(0.2),
        forwarded_proto: rng.random_bool(0.2).then(|| b" HTTPS, http".to_vec()),
    };
    let stored = |rng: &mut StdRng, text: &str| {
        Arc::new(Stored {
            data: spoilt(rng, text),
            expires: rng.random_bool(0.7).then(|| START + rng.random_range(0..9_000_000)),
            touched: rng.random_bool(0.3).then(|| START + rng.random_range(0..9_000_000)),
        })
    };
    let mut loaded = None;
    let mut beginning = twins.both(|it| it.begin(request.clone()));
    let session = loop {
        beginning = match beginning {
            Ok(Beginning::Ready(session)) => break session,
            Ok(Beginning::None) | Err(_) => return,
            Ok(Beginning::Load(visit)) => {
                let reply = match rng.random_range(0..10) {
                    0 => Ok(None),
                    1 => Err("down".to_owned()),
                    _ => Ok(Some(stored(rng, text))),
                };
                loaded = reply.clone().unwrap_or_default();
                twins.both(|it| it.loaded(visit.clone(), reply.clone()))
            }
        };
    };
    let change = Arc::new(change(rng));
    let spoil = |rng: &mut StdRng, visit: Visit| match rng.random_range(0..40) {
        0 => Visit { state: wit::State { bits: rng.random(), text: None }, ..visit },
        _ => visit,
    };
    let visit = spoil(rng, session.visit);
    let mut plan = twins.both(|it| it.finish(visit.clone(), loaded.clone(), change.clone()));
    for _ in 0..4 {
        let Ok(Plan { visit, writes, outcome }) = plan else { return };
        for write in &writes {
            if let Operation::Create(content) | Operation::Replace(content) = &write.operation {
                content.data.clone_into(text);
            }
        }
        if let Some(set_cookie) = &outcome.set_cookie {
            set_cookie.split(';').next().unwrap_or_default().clone_into(cookie);
        }
        let obstacle = match rng.random_range(0..9) {
            0 => Obstacle::Missing,
            1 => Obstacle::Taken,
            2 => Obstacle::Refused("no".to_owned()),
            3 => Obstacle::Unavailable("down".to_owned()),
            4..6 => Obstacle::Conflict((*stored(rng, text)).clone()),
            _ => return,
        };
        let at = rng.random_range(0..writes.len() + 1);
        let visit = spoil(rng, visit);
        plan = twins.both(|it| {
            it.resume(visit.clone(), loaded.clone(), change.clone(), at, obstacle.clone())
        });
    }
}

#[test]
fn the_component_and_the_native_code_decide_the_same() {
    let inputs = std::env::var("EDGE_SESSION_TWINS").ok().and_then(|it| it.parse().ok());
    let inputs: usize = inputs.unwrap_or(20_000);
    let clock = Arc::new(AtomicU64::new(START));
    let configured: [&[(&str, &str)]; 6] = [
        &[],
        &[("preset", "express"), ("cookie.max_age", "60000")],
        &[("rolling", "true"), ("proxy", "true"), ("cookie.secure", "true")],
        &[("on_store_error", "anonymous"), ("max_session_bytes", "300")],
        &[("preset", "express"), ("conflicts", "merge"), ("unset", "destroy")],
        &[("cookie.path", "/app"), ("store.touch_after", "60")],
    ];
    let mut all = configured.map(|texts| {
        let mut options = Options::default();
        options.secret([b'k'; 32]);
        for (name, text) in texts {
            options.set_text(name, text);
        }
        Twins::open(&options, &clock)
    });
    let mut rng = StdRng::seed_from_u64(20);
    let (mut cookie, mut text) = (String::new(), "{}".to_owned());
    while all.iter().map(|twins| twins.count).sum::<usize>() < inputs {
        clock.fetch_add(rng.random_range(0..5000), Ordering::Relaxed);
        let which = rng.random_range(0..all.len());
        play(&mut all[which], &mut rng, &mut cookie, &mut text);
    }
}
