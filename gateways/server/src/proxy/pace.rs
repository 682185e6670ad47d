//! How slowly a client may send and read.
//!
//! A client that sends or takes a byte now and then is never idle, and holds an application's
//! connection for as long as it likes. So in every [`WINDOW`] of waiting for it, it has to move
//! as many bytes as the least rate comes to; Apache's `RequestReadTimeout … MinRate` is the model.

use std::time::Duration;

/// How much waiting the rate is measured over. Who is slower for a shorter time is forgiven.
pub(crate) const WINDOW: Duration = Duration::from_secs(20);

/// What a client has moved in the present window.
#[derive(Debug)]
pub(crate) struct Meter {
    /// What it has to move in a window, in bytes.
    least: u64,
    moved: u64,
    waited: Duration,
}

impl Meter {
    /// `rate` is the least one, in bytes a second.
    pub(crate) fn new(rate: u64) -> Self {
        Self { least: rate.saturating_mul(WINDOW.as_secs()), moved: 0, waited: Duration::ZERO }
    }

    /// Something has come after it was waited for.
    pub(crate) fn record(&mut self, bytes: u64, waited: Duration) {
        self.moved = self.moved.saturating_add(bytes);
        self.waited += waited;
        if self.moved >= self.least {
            (self.moved, self.waited) = (0, Duration::ZERO);
        }
    }

    /// How much longer may be waited.
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
        // Enough for a window: the next one begins.
        meter.record(RATE * WINDOW.as_secs() - 10, Duration::from_secs(1));
        assert_eq!(meter.left(), WINDOW);
        meter.record(1, WINDOW * 2);
        assert_eq!(meter.left(), Duration::ZERO);
    }
}
