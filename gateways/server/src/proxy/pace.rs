//! The minimum rate at which clients must send and read.
//!
//! A client that sends or reads a byte now and then is never idle, and could occupy an
//! application's connection forever. In every [`WINDOW`] of waiting for it, a client must therefore
//! move the bytes that the minimum rate requires, as with Apache's `RequestReadTimeout … MinRate`.

use std::time::Duration;

/// The waiting time over which the rate is measured. Shorter slow phases are tolerated.
pub(crate) const WINDOW: Duration = Duration::from_secs(20);

/// Measures what a client moves in the current window.
#[derive(Debug)]
pub(crate) struct Meter {
    /// How many bytes it must move in a window.
    least: u64,
    moved: u64,
    waited: Duration,
}

impl Meter {
    /// Creates a meter for the minimum rate, in bytes per second.
    pub(crate) fn new(rate: u64) -> Self {
        Self { least: rate.saturating_mul(WINDOW.as_secs()), moved: 0, waited: Duration::ZERO }
    }

    /// Records bytes that arrived after a wait.
    pub(crate) fn record(&mut self, bytes: u64, waited: Duration) {
        self.moved = self.moved.saturating_add(bytes);
        self.waited += waited;
        if self.moved >= self.least {
            (self.moved, self.waited) = (0, Duration::ZERO);
        }
    }

    /// Returns how much longer the client may be waited for.
    pub(crate) fn left(&self) -> Duration {
        WINDOW.saturating_sub(self.waited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u64 = 100;

    #[test]
    fn a_rate_is_measured_over_windows_of_waiting() {
        let mut meter = Meter::new(RATE);
        meter.record(10, Duration::from_secs(15));
        assert_eq!(meter.left(), Duration::from_secs(5));
        // Enough for one window: the next one begins.
        meter.record(RATE * WINDOW.as_secs() - 10, Duration::from_secs(1));
        assert_eq!(meter.left(), WINDOW);
        meter.record(1, WINDOW * 2);
        assert_eq!(meter.left(), Duration::ZERO);
    }
}
