//! Three small charts of the last hour: sessions created, active and ended.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use edge_session::SessionLayer;
use maud::{Markup, html};

use crate::admin::inspector::Inspector;

/// How many minutes are kept.
const MINUTES: usize = 60;

/// The counts of one minute.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Minute {
    /// Sessions created by this process.
    pub(crate) created: u64,
    /// Sessions in the store.
    pub(crate) active: u64,
    /// Sessions that were ended or expired.
    pub(crate) ended: u64,
}

/// The counts of the last minutes.
#[derive(Clone, Default)]
pub(crate) struct History(Arc<Mutex<Past>>);

/// The past minutes, and the counts at the beginning of the current one.
#[derive(Default)]
struct Past {
    minutes: VecDeque<Minute>,
    created: u64,
    active: Option<u64>,
}

impl Past {
    /// Returns the counts of the current minute.
    fn current(&self, active: u64, created: u64) -> Minute {
        let new = created.saturating_sub(self.created);
        // If other processes created sessions, too, the number of ended ones is too small.
        let before = self.active.unwrap_or(active);
        Minute { created: new, active, ended: (before + new).saturating_sub(active) }
    }

    fn end_minute(&mut self, active: u64, created: u64) {
        let minute = self.current(active, created);
        if self.minutes.len() == MINUTES - 1 {
            self.minutes.pop_front();
        }
        self.minutes.push_back(minute);
        (self.created, self.active) = (created, Some(active));
    }
}

impl History {
    /// Records every minute. Never returns.
    pub(crate) async fn keep(self, layer: SessionLayer, inspector: Inspector) {
        let mut ticks = tokio::time::interval(Duration::from_secs(60));
        loop {
            ticks.tick().await;
            let Ok(active) = inspector.browse.count().await else { continue };
            self.past().end_minute(active, layer.sessions_created());
        }
    }

    fn past(&self) -> MutexGuard<'_, Past> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the charts, up to now, for `active` sessions in the store and `created` in all.
    pub(crate) fn charts(&self, active: u64, created: u64) -> Markup {
        let minutes: Vec<Minute> = {
            let past = self.past();
            past.minutes.iter().copied().chain([past.current(active, created)]).collect()
        };
        let values = |of: fn(&Minute) -> u64| minutes.iter().map(of).collect::<Vec<_>>();
        html! {
            div.charts {
                (chart("Created", "per minute, by this process", "in this minute", &values(|minute| minute.created)))
                (chart("Active", "in the store", "now", &values(|minute| minute.active)))
                (chart("Expired or ended", "per minute", "in this minute", &values(|minute| minute.ended)))
            }
        }
    }
}

fn chart(title: &str, unit: &str, when: &str, values: &[u64]) -> Markup {
    const HEIGHT: f64 = 40.0;
    let most = values.iter().copied().max().unwrap_or(0).max(1);
    let last = values.last().copied().unwrap_or(0);
    let missing = MINUTES - values.len();
    let label = format!("{title} {unit}: {last} {when}, {most} at most in the last hour");
    html! {
        figure {
            figcaption { strong { (title) } " " span.quiet { (unit) } }
            svg role="img" aria-label=(label) viewBox=(format!("0 0 {} {HEIGHT}", MINUTES * 3))
                preserveAspectRatio="none" {
                @for (at, value) in values.iter().enumerate() {
                    @let height = *value as f64 / most as f64 * HEIGHT;
                    rect x=((missing + at) * 3) y=(HEIGHT - height) width="2" height=(height) {}
                }
            }
            p { span.number { (last) } " " (when) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_hour_is_shown() {
        let history = History::default();
        for active in 0..100 {
            history.past().end_minute(active, 7);
        }
        let page = history.charts(123, 7).into_string();
        assert_eq!(page.matches("<rect").count(), 3 * MINUTES);
        assert!(page.contains(">123</span> now"));
    }

    #[test]
    fn the_minute_that_is_not_over_is_shown() {
        let history = History::default();
        history.past().end_minute(5, 5);
        // Ten were created, and three ended.
        let page = history.charts(12, 15).into_string();
        for part in [">10</span> in this minute", ">12</span> now", ">3</span> in this minute"] {
            assert!(page.contains(part), "{part}: {page}");
        }
    }
}
