//! A form is only good from this visitor's own pages: it carries a token that the session
//! knows and other sites cannot.

use std::hint::black_box;

use axum::RequestExt as _;
use axum::extract::{Form, FromRequest, Request};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use edge_session::{NoSession, Session, SessionError};
use rand::RngExt as _;
use rand::rngs::StdRng;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{known_visitor, page, pages, text};

/// The session's key for the token, and the form field's name.
pub(super) const KEY: &str = "csrf";

const TOKEN_BYTES: usize = 24;

/// The session's token, made on first need.
pub(super) fn token(session: &Session) -> Result<String, SessionError> {
    match text(session, KEY)? {
        Some(token) => Ok(token),
        None => renew(session),
    }
}

/// A new token, which makes all forms that were shown before worthless.
pub(super) fn renew(session: &Session) -> Result<String, SessionError> {
    let token = new_token();
    session.insert(KEY, &token)?;
    Ok(token)
}

fn new_token() -> String {
    let bytes: [u8; TOKEN_BYTES] = rand::make_rng::<StdRng>().random();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Compare in a time that does not tell how much of a guess is right.
fn is_same(expected: &str, given: &str) -> bool {
    let difference = |(one, other): (u8, u8)| black_box(one ^ other);
    expected.len() == given.len()
        && expected.bytes().zip(given.bytes()).map(difference).fold(0, |all, one| all | one) == 0
}

/// The fields of a form whose token is right. No handler of a form goes without.
pub(super) struct Checked<T>(pub(super) T);

/// A form as it is sent.
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

/// The page that has the form of this address.
fn back_from(path: &str) -> &'static str {
    match path {
        "/login" => "/login",
        _ => "/",
    }
}

fn forged(session: &Session, back: &str) -> Response {
    let text = "The form does not belong to your session: perhaps it was open for long, or you \
                logged in or out in another tab. Nothing was changed. Please go back and try again.";
    refusal(session, StatusCode::FORBIDDEN, "That form is out of date", text, back)
}

fn unreadable(session: &Session, status: StatusCode, back: &str) -> Response {
    let text = match status {
        StatusCode::PAYLOAD_TOO_LARGE => "The form is too large.",
        _ => "The form cannot be read.",
    };
    refusal(session, status, "That did not work", text, back)
}

fn refusal(session: &Session, status: StatusCode, title: &str, text: &str, back: &str) -> Response {
    match known_visitor(Some(session)) {
        Ok(visitor) => page(status, pages::refusal(visitor.as_ref(), title, text, back)),
        Err(error) => error.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_token_is_the_same() {
        let token = new_token();
        assert!(is_same(&token, &token.clone()));
        for other in ["", &token[1..], &format!("{token}0"), &new_token()] {
            assert!(!is_same(&token, other), "{other} is not {token}");
        }
    }

    #[test]
    fn every_token_is_another_and_has_192_bits() {
        let (one, other) = (new_token(), new_token());
        assert_ne!(one, other);
        assert_eq!(one.len(), 48);
        assert!(one.bytes().all(|byte| byte.is_ascii_hexdigit()), "{one}");
    }
}
