//! What happens: the events of a history, generated and shrunk.

use std::fmt;

use rand::RngExt as _;
use rand::rngs::StdRng;

/// The most visitors and gateways of a history.
pub(crate) const VISITORS: u8 = 2;
pub(crate) const GATEWAYS: u8 = 3;

/// What the application does in a request. Every change sets a key of its own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Deed {
    Nothing,
    Set,
    Renew,
    Regenerate,
    Destroy,
}

/// Which cookie a request carries.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Carried {
    /// The browser's.
    Own,
    /// None: the visitor has another browser.
    None,
    /// The browser's, after a cookie of the same name whose session does not exist.
    BehindStale,
}

/// What happens to the next operation on the store.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    None,
    /// The store fails, and has done nothing.
    Before,
    /// The store has done it, and its reply is lost.
    After,
}

/// One event. Requests are numbered by their place among those in progress, so that any part of a
/// history is a history.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Event {
    /// A request arrives.
    Start { visitor: u8, gateway: u8, deed: Deed, carried: Carried },
    /// A request makes its next call and its next operation on the store.
    Step { request: u8, fault: Fault },
    /// The gateway of a request stops.
    Crash { request: u8 },
    /// Time passes, in milliseconds.
    Tick(u32),
}

#[derive(Clone, Debug)]
pub(crate) struct History {
    /// Which of the rig's options are used.
    pub(crate) options: u8,
    /// How far the gateways' clocks are off, in milliseconds.
    pub(crate) skews: [i32; GATEWAYS as usize],
    pub(crate) events: Vec<Event>,
}

impl History {
    pub(crate) fn random(rng: &mut StdRng) -> Self {
        // A history without faults is held to stricter promises.
        let faults = if rng.random_bool(0.4) { 0 } else { rng.random_range(1..20) };
        let count = rng.random_range(5..80);
        let events = (0..count).map(|_| event(rng, faults)).collect();
        let skews = std::array::from_fn(|_| rng.random_range(-2000..2000));
        Self { options: rng.random(), skews, events }
    }

    /// Removes events as long as the history still `fails`.
    pub(crate) fn shrunk(
        mut self,
        fails: impl Fn(&Self) -> Option<String>,
        mut broken: String,
    ) -> (Self, String) {
        let mut size = self.events.len() / 2;
        while size > 0 {
            let mut at = 0;
            let mut is_shorter = false;
            while at < self.events.len() {
                let mut shorter = self.clone();
                let end = (at + size).min(shorter.events.len());
                shorter.events.drain(at..end);
                match fails(&shorter) {
                    Some(how) => (self, broken, is_shorter) = (shorter, how, true),
                    None => at += size,
                }
            }
            if size == 1 && is_shorter {
                continue;
            }
            size /= 2;
        }
        (self, broken)
    }
}

fn event(rng: &mut StdRng, faults: u32) -> Event {
    match rng.random_range(0..100) {
        0..22 => Event::Start {
            visitor: rng.random_range(0..VISITORS),
            gateway: rng.random_range(0..GATEWAYS),
            deed: match rng.random_range(0..12) {
                0..2 => Deed::Nothing,
                2..7 => Deed::Set,
                7..9 => Deed::Renew,
                9 => Deed::Regenerate,
                _ => Deed::Destroy,
            },
            carried: match rng.random_range(0..12) {
                0 => Carried::None,
                1 => Carried::BehindStale,
                _ => Carried::Own,
            },
        },
        22..26 => Event::Tick(match rng.random_range(0..4) {
            0 => rng.random_range(25_000..40_000),
            _ => rng.random_range(1..5000),
        }),
        26 if faults > 0 => Event::Crash { request: rng.random() },
        _ => Event::Step {
            request: rng.random(),
            fault: match rng.random_range(0..100) {
                n if n < faults => Fault::Before,
                n if n < 2 * faults => Fault::After,
                _ => Fault::None,
            },
        },
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "options {}, skews {:?}", self.options, self.skews)?;
        self.events.iter().try_for_each(|event| writeln!(f, "{event:?}"))
    }
}
