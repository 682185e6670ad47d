//! Adds a request's identifier and path to the end of every line that is logged while it is
//! handled.

use std::fmt;

use http::{HeaderValue, Uri};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

tokio::task_local! {
    static REQUEST: Asked;
}

/// A request, as identified in the log.
#[derive(Clone)]
pub(crate) struct Asked {
    pub(crate) id: Option<HeaderValue>,
    /// Logged without its query, which may contain secrets.
    pub(crate) uri: Uri,
}

impl Asked {
    pub(crate) fn id(&self) -> &str {
        self.id.as_ref().and_then(|id| id.to_str().ok()).unwrap_or("-")
    }

    /// Attributes everything that `work` logs to this request.
    pub(crate) async fn during<T>(self, work: impl Future<Output = T>) -> T {
        REQUEST.scope(self, work).await
    }
}

/// A line format that adds the request.
pub(super) struct OfRequest<F> {
    pub(super) format: F,
    pub(super) is_json: bool,
}

impl<S, N, F> FormatEvent<S, N> for OfRequest<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let Ok(request) = REQUEST.try_with(Clone::clone) else {
            return self.format.format_event(context, writer, event);
        };
        let mut line = String::new();
        self.format.format_event(context, Writer::new(&mut line), event)?;
        let (id, path) = (request.id(), request.uri.path());
        let (rest, end) = match self.is_json {
            true => (line.trim_end().trim_end_matches('}'), "}"),
            false => (line.trim_end(), ""),
        };
        writer.write_str(rest)?;
        match self.is_json {
            true => {
                let [id, path] = [id, path].map(|text| serde_json::Value::from(text).to_string());
                write!(writer, ",\"request\":{id},\"path\":{path}")?;
            }
            false => write!(writer, " request={id} path={path:?}")?,
        }
        writeln!(writer, "{end}")
    }
}
