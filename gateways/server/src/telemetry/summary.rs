//! Summarizes repeated lines, so that clients can neither fill a disk nor hide a line among others.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::sleep;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// How many lines per source location are shown in each period, and the length of a period.
const SHOWN: u64 = 20;
const PERIOD: Duration = Duration::from_secs(10);

/// A location in the source: file and line.
type Place = (Option<&'static str>, Option<u32>);

/// Counts lines by source location, except those that name a session, which are a record of what
/// happened to it. Shared by clones.
#[derive(Clone, Default)]
pub(crate) struct Summary(Arc<Mutex<HashMap<Place, Lines>>>);

/// The lines of one location in this period.
struct Lines {
    level: Level,
    count: u64,
    /// The message of the last line that was not shown.
    hidden: Option<String>,
}

impl Summary {
    /// Reports suppressed lines every period, until the program ends.
    pub(crate) async fn keep(self) {
        loop {
            sleep(PERIOD).await;
            self.tell();
        }
    }

    /// Reports suppressed lines, and begins a new period.
    fn tell(&self) {
        let lines = std::mem::take(&mut *self.lock());
        for Lines { level, count, hidden } in lines.into_values() {
            if let Some(last) = hidden {
                let more = count - SHOWN;
                let seconds = PERIOD.as_secs();
                let told = format!("{more} more times in the last {seconds} s: {last}");
                match level {
                    Level::INFO => tracing::info!("{told}"),
                    _ => tracing::warn!("{told}"),
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Place, Lines>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Subscriber> Layer<S> for Summary {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let (metadata, level) = (event.metadata(), *event.metadata().level());
        let is_record = level == Level::INFO && metadata.fields().field("session").is_some();
        if level > Level::INFO || is_record || metadata.module_path() == Some(module_path!()) {
            return true;
        }
        let mut all = self.lock();
        let new = || Lines { level, count: 0, hidden: None };
        let lines = all.entry((metadata.file(), metadata.line())).or_insert_with(new);
        lines.count += 1;
        if lines.count <= SHOWN {
            return true;
        }
        let mut message = Message(String::new());
        event.record(&mut message);
        lines.hidden = Some(message.0);
        false
    }
}

/// The message of a line.
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            // Writing to a `String` cannot fail.
            let _ = write!(self.0, "{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use tracing_subscriber::fmt::MakeWriter;
    use tracing_subscriber::layer::SubscriberExt as _;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Log {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    impl Log {
        fn lines(&self) -> Vec<String> {
            let bytes = std::mem::take(&mut *self.0.lock().unwrap());
            String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
        }
    }

    #[test]
    fn a_line_that_comes_again_and_again_is_shown_a_few_times_and_then_counted() {
        let (summary, log) = (Summary::default(), Log::default());
        let lines = tracing_subscriber::fmt()
            .with_max_level(Level::DEBUG)
            .with_ansi(false)
            .without_time()
            .with_target(false);
        let subscriber = lines.with_writer(log.clone()).finish().with(summary.clone());
        tracing::subscriber::with_default(subscriber, || {
            let flood = |count| {
                (0..count).for_each(|number| tracing::warn!("out of chairs, number {number}"));
            };
            flood(1000);
            tracing::error!("something else");
            (0..30).for_each(|_| tracing::info!("a guest has left"));
            (0..30).for_each(|_| tracing::info!(session = "a", "it has ended"));
            (0..30).for_each(|_| tracing::debug!("not counted"));
            let shown = log.lines();
            let count = |text| shown.iter().filter(|line| line.contains(text)).count();
            assert_eq!((count("chairs"), count("else"), count("guest")), (20, 1, 20));
            assert_eq!((count("ended"), count("not counted")), (30, 30));
            assert!(shown[0].contains("WARN out of chairs, number 0"), "{shown:?}");

            summary.tell();
            let told = log.lines();
            assert_eq!(told.len(), 2, "{told:?}");
            for line in [
                "WARN 980 more times in the last 10 s: out of chairs, number 999",
                "INFO 10 more times in the last 10 s: a guest has left",
            ] {
                assert!(told.iter().any(|it| it.contains(line)), "{told:?}");
            }
            // A new period has begun, and nothing is reported twice.
            flood(2);
            summary.tell();
            assert_eq!(log.lines().len(), 2);
        });
    }
}
