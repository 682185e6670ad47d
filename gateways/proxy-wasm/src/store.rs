//! Store operations as HTTP calls to an edge-session.

use edge_session_component::wit::{Content, Obstacle, Operation, Stored, Write};
use serde::{Deserialize, Serialize};

/// A call: its path and its body.
pub(crate) struct Call {
    pub(crate) path: &'static str,
    pub(crate) body: String,
}

/// The body of a call.
#[derive(Serialize)]
struct Question<'q> {
    id: &'q str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'q str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected: Option<&'q str>,
}

/// A stored session in an answer.
#[derive(Deserialize)]
struct Found {
    data: String,
    expires: Option<u64>,
    touched: Option<u64>,
}

impl Call {
    pub(crate) fn load(id: &str) -> Self {
        Self::new("/store/load", Question { id, data: None, expires: None, expected: None })
    }

    /// Returns the call for a write; `seen` is the session that the write was decided for.
    pub(crate) fn of(write: &Write, seen: Option<&Stored>) -> Self {
        let Write { id, operation, if_unchanged } = write;
        let expected = seen.filter(|_| *if_unchanged).map(|it| &*it.data);
        let content = |Content { data, expires }: &Content| (data.clone(), *expires);
        let (path, content, expires, expected) = match operation {
            Operation::Load => ("/store/load", None, None, None),
            Operation::Create(it) => ("/store/create", Some(content(it)), None, None),
            Operation::Replace(it) => ("/store/replace", Some(content(it)), None, expected),
            Operation::Touch(expires) => ("/store/touch", None, Some(*expires), None),
            Operation::Delete => ("/store/delete", None, None, expected),
        };
        let (data, ends) = content.map_or((None, None), |(data, ends)| (Some(data), Some(ends)));
        let expires = expires.or(ends);
        Self::new(path, Question { id, data: data.as_deref(), expires, expected })
    }

    fn new(path: &'static str, question: Question<'_>) -> Self {
        // Texts and numbers are always valid JSON.
        Self { path, body: serde_json::to_string(&question).unwrap_or_default() }
    }
}

/// An answer; none: there was none in time.
pub(crate) type Answer = Option<(u16, Vec<u8>)>;

/// Reads the answer to a load. The error says why there is none.
pub(crate) fn loaded(answer: Answer) -> Result<Option<Stored>, String> {
    match answer {
        Some((200, body)) => found(&body).map(Some),
        Some((404, _)) => Ok(None),
        other => Err(failed(other)),
    }
}

/// Reads the answer to a write.
pub(crate) fn written(operation: &Operation, answer: Answer) -> Result<(), Obstacle> {
    match (operation, answer) {
        (Operation::Load, answer) => match loaded(answer).map_err(Obstacle::Unavailable)? {
            Some(stored) => Err(Obstacle::Conflict(stored)),
            None => Err(Obstacle::Missing),
        },
        (_, Some((204, _))) => Ok(()),
        (Operation::Create(_), Some((409, _))) => Err(Obstacle::Taken),
        (_, Some((404, _))) => Err(Obstacle::Missing),
        (_, Some((409, body))) => Err(match found(&body) {
            Ok(stored) => Obstacle::Conflict(stored),
            Err(why) => Obstacle::Unavailable(why),
        }),
        (_, Some((422, body))) => Err(Obstacle::Refused(detail(&body))),
        (_, other) => Err(Obstacle::Unavailable(failed(other))),
    }
}

fn found(body: &[u8]) -> Result<Stored, String> {
    let found: Found = serde_json::from_slice(body)
        .map_err(|_| "edge-session answered with no session".to_owned())?;
    let Found { data, expires, touched } = found;
    Ok(Stored { data, expires, touched })
}

fn failed(answer: Answer) -> String {
    match answer {
        None => "edge-session does not answer: look at `service.cluster`".to_owned(),
        Some((401 | 403, _)) => {
            "edge-session refuses the token: `service.token` must be its EDGE_SESSION_AUTH_TOKEN"
                .to_owned()
        }
        Some((status, body)) => format!("edge-session answered {status}: {}", detail(&body)),
    }
}

/// Returns what a problem document says.
fn detail(body: &[u8]) -> String {
    let problem: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let detail = problem.as_ref().and_then(|problem| problem["detail"].as_str());
    detail.unwrap_or("it does not say why").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(data: &str) -> Stored {
        Stored { data: data.to_owned(), expires: Some(7), touched: None }
    }

    #[test]
    fn a_call_says_what_the_operation_needs_and_no_more() {
        let content = || Content { data: "{}".to_owned(), expires: 5 };
        let seen = stored("old");
        for (operation, if_unchanged, path, body) in [
            (Operation::Load, false, "/store/load", r#"{"id":"i"}"#),
            (
                Operation::Create(content()),
                false,
                "/store/create",
                r#"{"id":"i","data":"{}","expires":5}"#,
            ),
            (
                Operation::Replace(content()),
                true,
                "/store/replace",
                r#"{"id":"i","data":"{}","expires":5,"expected":"old"}"#,
            ),
            (
                Operation::Replace(content()),
                false,
                "/store/replace",
                r#"{"id":"i","data":"{}","expires":5}"#,
            ),
            (Operation::Touch(9), false, "/store/touch", r#"{"id":"i","expires":9}"#),
            (Operation::Delete, true, "/store/delete", r#"{"id":"i","expected":"old"}"#),
            (Operation::Delete, false, "/store/delete", r#"{"id":"i"}"#),
        ] {
            let write = Write { id: "i".to_owned(), operation, if_unchanged };
            let call = Call::of(&write, Some(&seen));
            assert_eq!((call.path, &*call.body), (path, body));
        }
    }

    #[test]
    fn every_answer_has_its_meaning() {
        let session = br#"{"data":"now","expires":7,"touched":null}"#.to_vec();
        assert_eq!(loaded(Some((200, session.clone()))), Ok(Some(stored("now"))));
        assert_eq!(loaded(Some((404, Vec::new()))), Ok(None));
        for (answer, said) in [
            (None, "does not answer"),
            (Some((401, Vec::new())), "token"),
            (Some((503, br#"{"detail":"down"}"#.to_vec())), "503: down"),
            (Some((200, b"<html>".to_vec())), "no session"),
        ] {
            assert!(loaded(answer).unwrap_err().contains(said));
        }
        let create = Operation::Create(Content { data: String::new(), expires: 0 });
        assert_eq!(written(&create, Some((204, Vec::new()))), Ok(()));
        assert_eq!(written(&create, Some((409, Vec::new()))), Err(Obstacle::Taken));
        let delete = Operation::Delete;
        assert_eq!(written(&delete, Some((404, Vec::new()))), Err(Obstacle::Missing));
        let conflict = written(&delete, Some((409, session.clone())));
        assert_eq!(conflict, Err(Obstacle::Conflict(stored("now"))));
        let again = written(&Operation::Load, Some((200, session)));
        assert_eq!(again, Err(Obstacle::Conflict(stored("now"))));
        let refused = written(&delete, Some((422, br#"{"detail":"too long"}"#.to_vec())));
        assert_eq!(refused, Err(Obstacle::Refused("too long".to_owned())));
        assert!(matches!(written(&delete, None), Err(Obstacle::Unavailable(_))));
    }
}
