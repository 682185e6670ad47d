//! Another visitor, who wants small pages at a steady pace.

use std::time::{Duration, Instant};

use crate::Result;
use crate::gateway::client::Connection;

/// How long it waits between the beginnings of visits, where they are answered that fast.
const PACE: Duration = Duration::from_millis(2);

/// How long it waits for an answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// How many visits a connection has. A visitor who comes now is to be served, too.
const VISITS_OF_A_CONNECTION: usize = 10;

pub(super) struct Bystander<'b> {
    pub(super) port: u16,
    pub(super) path: &'static str,
    pub(super) cookie: Option<&'b str>,
}

/// What it has seen.
pub(super) struct Seen {
    /// How long visits took, in milliseconds, sorted; also those that failed.
    pub(super) visits: Vec<f64>,
    pub(super) failed: usize,
    pub(super) elapsed: Duration,
}

impl Seen {
    pub(super) fn quantile(&self, share: f64) -> f64 {
        let at = (self.visits.len() as f64 * share) as usize;
        self.visits.get(at.min(self.visits.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
    }
}

impl Bystander<'_> {
    /// Come `count` times and for as long as `least`, but not for longer than `most`.
    pub(super) fn visit(&self, count: usize, least: Duration, most: Duration) -> Seen {
        let begin = Instant::now();
        let mut seen = Seen { visits: Vec::new(), failed: 0, elapsed: Duration::ZERO };
        let mut connection = None;
        while (seen.visits.len() < count || begin.elapsed() < least) && begin.elapsed() < most {
            if seen.visits.len().is_multiple_of(VISITS_OF_A_CONNECTION) {
                connection = None;
            }
            let visit = Instant::now();
            if self.once(&mut connection).is_err() {
                connection = None;
                seen.failed += 1;
            }
            seen.visits.push(visit.elapsed().as_secs_f64() * 1000.0);
            std::thread::sleep(PACE.saturating_sub(visit.elapsed()));
        }
        seen.elapsed = begin.elapsed();
        seen.visits.sort_by(f64::total_cmp);
        seen
    }

    fn once(&self, connection: &mut Option<Connection>) -> Result<()> {
        let connection = match connection {
            Some(connection) => connection,
            None => connection.insert(Connection::patient(self.port, PATIENCE)?),
        };
        connection.get(self.path, self.cookie)?;
        Ok(())
    }
}
