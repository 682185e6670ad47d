//! CSRF protection: forms carry a token that is stored in the session and unknown to other sites.

use edge_session::{Session, SessionError};
use rand::RngExt as _;
use rand::rngs::StdRng;
use subtle::ConstantTimeEq as _;

use super::text;
use crate::web::hexadecimal;

/// The session key of the token, and the name of the form field.
pub(super) const KEY: &str = "csrf";

const TOKEN_BYTES: usize = 24;

/// Returns the session's token, and creates it on first use.
pub(super) fn token(session: &Session) -> Result<String, SessionError> {
    match text(session, KEY)? {
        Some(token) => Ok(token),
        None => renew(session),
    }
}

/// Replaces the token, which invalidates all previous forms.
pub(super) fn renew(session: &Session) -> Result<String, SessionError> {
    let token = new_token();
    session.insert(KEY, &token)?;
    Ok(token)
}

fn new_token() -> String {
    let bytes: [u8; TOKEN_BYTES] = rand::make_rng::<StdRng>().random();
    hexadecimal(&bytes)
}

/// Compares in constant time, to leak nothing about a guess.
pub(super) fn is_same(expected: &str, given: &str) -> bool {
    expected.as_bytes().ct_eq(given.as_bytes()).into()
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
