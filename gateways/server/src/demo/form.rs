//! Extracts the fields of a form after checking its token.

use axum::RequestExt as _;
use axum::extract::{Form, FromRequest, Request};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use edge_session::{NoSession, Session};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::csrf::{KEY, is_same};
use super::{known_visitor, page, pages, text};

/// The fields of a form with a valid token. Every form handler extracts them with it.
pub(super) struct Checked<T>(pub(super) T);

/// A submitted form.
#[derive(Deserialize)]
struct Sent<T> {
    #[serde(default)]
    csrf: String,
    #[serde(flatten)]
    fields: T,
}

impl<S: Send + Sync, T: DeserializeOwned + 'static> FromRequest<S> for Checked<T> {
    type Rejection = Response;

    async fn from_request(request: Request, _: &S) -> Result<Self, Response> {
        let back = back_from(request.uri().path());
        let session = request.extensions().get::<Session>().cloned();
        let session = session.ok_or_else(|| NoSession.into_response())?;
        let Form(sent) = match request.extract::<Form<Sent<T>>, _>().await {
            Ok(form) => form,
            Err(rejection) => return Err(unreadable(&session, rejection.status(), back)),
        };
        match text(&session, KEY) {
            Ok(Some(expected)) if is_same(&expected, &sent.csrf) => Ok(Self(sent.fields)),
            Ok(_) => Err(forged(&session, back)),
            Err(error) => Err(error.into_response()),
        }
    }
}

/// Returns the page that has the form of this address.
fn back_from(path: &str) -> &'static str {
    match path {
        "/login" => "/login",
        _ => "/",
    }
}

fn forged(session: &Session, back: &str) -> Response {
    let text = "The form does not belong to your session: it may have been open for a long time, \
                or you logged in or out in another tab. Nothing was changed. Please go back and \
                try again.";
    refusal(session, StatusCode::FORBIDDEN, "That form is out of date", text, back)
}

fn unreadable(session: &Session, status: StatusCode, back: &str) -> Response {
    let text = match status {
        StatusCode::PAYLOAD_TOO_LARGE => "The form is too large.",
        _ => "The form cannot be read.",
    };
    refusal(session, status, "The form was not accepted", text, back)
}

fn refusal(session: &Session, status: StatusCode, title: &str, text: &str, back: &str) -> Response {
    match known_visitor(Some(session)) {
        Ok(visitor) => page(status, pages::refusal(visitor.as_ref(), title, text, back)),
        Err(error) => error.into_response(),
    }
}
