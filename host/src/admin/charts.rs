//! The last hour in three small pictures: sessions that began, that there were, that ended.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use maud::{Markup, html};
use metrics_exporter_prometheus::PrometheusHandle;

use crate::inspector::Inspector;

/// How many minutes are remembered.
const MINUTES: usize = 60;

/// One minute.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Minute {
    /// Sessions that this process created.
    pub(crate) created: u64,
    /// Sessions that the store had.
    pub(crate) active: u64,
    /// Sessions that were ended, or expired.
    pub(crate) ended: u64,
}

/// What happened, minute by minute.
#[derive(Clone, Default)]
pub(crate) struct History(Arc<Mutex<VecDeque<Minute>>>);

impl History {
    /// Write down every minute. Never ends.
    pub(crate) async fn keep(self, recorder: PrometheusHandle, inspector: Inspector) {
        let mut ticks = tokio::time::interval(Duration::from_secs(60));
        let mut created_before = 0;
        let mut active_before = None;
        loop {
            ticks.tick().await;
            let Ok(active) = inspector.browse.count().await else { continue };
            let created = created(&recorder.render());
            let new = created.saturating_sub(created_before);
            // Other processes may have created some, too: then this is too little.
            let before = active_before.unwrap_or(active);
            self.add(Minute { created: new, active, ended: (before + new).saturating_sub(active) });
            (created_before, active_before) = (created, Some(active));
        }
    }

    fn add(&self, minute: Minute) {
        let mut minutes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if minutes.len() == MINUTES {
            minutes.pop_front();
        }
        minutes.push_back(minute);
    }

    /// The pictures, up to now.
    pub(crate) fn charts(&self, active: u64) -> Markup {
        let mut minutes: Vec<Minute> =
            self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect();
        match minutes.last_mut() {
            Some(last) => last.active = active,
            None => minutes.push(Minute { active, ..Minute::default() }),
        }
        let values = |of: fn(&Minute) -> u64| minutes.iter().map(of).collect::<Vec<_>>();
        html! {
            div.charts {
                (chart("Created", "a minute, by this process", &values(|minute| minute.created)))
                (chart("Active", "in the store", &values(|minute| minute.active)))
                (chart("Expired or ended", "a minute", &values(|minute| minute.ended)))
            }
        }
    }
}

/// How many sessions were created, as the metrics say.
fn created(metrics: &str) -> u64 {
    const NAME: &str = "edge_session_finished_total{event=\"created\"} ";
    let line = metrics.lines().find_map(|line| line.strip_prefix(NAME));
    line.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

fn chart(title: &str, unit: &str, values: &[u64]) -> Markup {
    const HEIGHT: f64 = 40.0;
    let most = values.iter().copied().max().unwrap_or(0).max(1);
    let last = values.last().copied().unwrap_or(0);
    let missing = MINUTES - values.len();
    let label = format!("{title} {unit}: {last} now, {most} at most in the last hour");
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
            p { span.number { (last) } " now" }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_created_is_read_from_the_metrics() {
        let metrics = "# TYPE x counter\nedge_session_finished_total{event=\"saved\"} 5\n\
                       edge_session_finished_total{event=\"created\"} 12\n";
        assert_eq!(created(metrics), 12);
        assert_eq!(created(""), 0);
    }

    #[test]
    fn only_the_last_hour_is_shown() {
        let history = History::default();
        for active in 0..100 {
            history.add(Minute { active, ..Minute::default() });
        }
        let page = history.charts(123).into_string();
        assert_eq!(page.matches("<rect").count(), 3 * MINUTES);
        assert!(page.contains(">123</span> now"));
    }
}
