//! Another visitor, who requests small pages at a steady rate.

use std::time::{Duration, Instant};

use crate::Result;
use crate::gateway::client::Connection;

/// The interval between the starts of visits, if responses are fast enough.
const PACE: Duration = Duration::from_millis(2);

/// The timeout for a response.
const PATIENCE: Duration = Duration::from_secs(2);

/// The number of visits per connection. Visitors with new connections must be served too.
const VISITS_OF_A_CONNECTION: usize = 10;

pub(super) struct Bystander<'b> {
    pub(super) port: u16,
    pub(super) path: &'static str,
    pub(super) cookie: Option<&'b str>,
}

/// What the bystander observed.
pub(super) struct Seen {
    /// The durations of visits in milliseconds, sorted, including those that failed.
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
    /// Visits at least `count` times and for at least `least`, but not for longer than `most`.
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
