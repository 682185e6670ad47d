//! Records where a session moved, for requests that know only its old identifier: a note in the
//! store, next to the session.
//!
//! The note's identifier is derived from the old one and the secret. No cookie contains it, so it
//! is not a session of any visitor, not even for express-session. Reading the new identifier from
//! the note also requires both the old one and the secret, not just access to the store.

use crate::identifier;
use crate::json;
use crate::options::CookieOptions;
use crate::session_cookie::SessionCookie;
use crate::signature::Keys;
use crate::wit::Millis;

/// How long a request that began before its session moved can follow it. For the same time, changes
/// are refused to requests that begin afterwards with the old cookie.
pub(crate) const GRACE: Millis = 30_000;

/// The member of the note that holds the new identifier.
const TO: &str = "movedTo";

/// Returns the identifier of the note about the session `old`.
pub(crate) fn place(keys: &Keys, old: &str) -> String {
    identifier::of(keys.derive("the note about", old))
}

/// Returns the text of a note. `new`: where `old` continues; none: its data was discarded.
pub(crate) fn note(
    keys: &Keys,
    old: &str,
    new: Option<&str>,
    options: &CookieOptions,
    now: Millis,
) -> String {
    // Tools that count all documents in the store see a session that expires with the note.
    let ends = CookieOptions { max_age: Some(GRACE as f64), ..options.clone() };
    let cookie = SessionCookie::new(&ends, false, now).to_text();
    let to = match new.and_then(identifier::bytes) {
        Some(new) => format!("\"{}\"", identifier::of(masked(keys, old, new))),
        None => "null".to_owned(),
    };
    format!("{{\"cookie\":{cookie},\"{TO}\":{to}}}")
}

/// Returns where the session `old` continues according to a note; none if it ended there, or if
/// `text` is no such note.
pub(crate) fn read(keys: &Keys, old: &str, text: &str) -> Option<String> {
    let mut to = None;
    json::members(text, |key, value| {
        if *key.name() == *TO.as_bytes() {
            to = Some(value);
        }
        Ok(())
    })
    .ok()?;
    let to = identifier::bytes(to?.strip_prefix('"')?.strip_suffix('"')?)?;
    Some(identifier::of(masked(keys, old, to)))
}

/// Masks or unmasks an identifier.
fn masked(keys: &Keys, old: &str, id: [u8; 24]) -> [u8; 24] {
    let mask = keys.derive("the successor of", old);
    std::array::from_fn(|at| id[at] ^ mask[at])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Preset, defaults};
    use proptest::prelude::*;

    fn keys(secret: &str) -> Keys {
        Keys::new(&[secret.as_bytes().to_vec()])
    }

    fn written(new: Option<&str>) -> String {
        note(&keys("k"), "old", new, &defaults(Preset::Safe).cookie, 1_893_456_000_000)
    }

    #[test]
    fn a_note_is_a_session_without_data_that_ends_soon() {
        assert_eq!(
            written(None),
            r#"{"cookie":{"originalMaxAge":30000,"expires":"2030-01-01T00:00:30.000Z","secure":false,"httpOnly":true,"path":"/","sameSite":"lax"},"movedTo":null}"#
        );
    }

    #[test]
    fn a_note_tells_nothing_to_who_has_not_the_secret_and_the_old_identifier() {
        let new = identifier::of([7; 24]);
        let text = written(Some(&new));
        assert_eq!(read(&keys("k"), "old", &text), Some(new.clone()));
        assert!(!text.contains(&new));
        // The note's own identifier does not reveal it either.
        let said = text.split('"').rev().nth(1).and_then(identifier::bytes).expect("what it says");
        let at = identifier::bytes(&place(&keys("k"), "old")).unwrap();
        assert_ne!(identifier::of(std::array::from_fn(|n| said[n] ^ at[n])), new);
        assert_ne!(read(&keys("other"), "old", &text), Some(new.clone()));
        assert_ne!(read(&keys("k"), "older", &text), Some(new));
        assert_ne!(place(&keys("k"), "old"), place(&keys("other"), "old"));
        assert_ne!(place(&keys("k"), "old"), place(&keys("k"), "older"));
    }

    #[test]
    fn what_is_no_note_and_what_leads_nowhere_is_none() {
        let keys = keys("k");
        for text in [
            &*written(None),
            "",
            "null",
            "{}",
            r#"{"cookie":{},"a":1}"#,
            r#"{"movedTo":1}"#,
            r#"{"movedTo":"abc"}"#,
            r#"{"movedTo":{}}"#,
            r#"{"movedTo":null"#,
        ] {
            assert_eq!(read(&keys, "old", text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn where_a_session_went_is_read_back(old in ".*", new: [u8; 24]) {
            let new = identifier::of(new);
            let options = defaults(Preset::Safe).cookie;
            let text = note(&keys("k"), &old, Some(&new), &options, 0);
            prop_assert_eq!(read(&keys("k"), &old, &text), Some(new));
        }

        #[test]
        fn no_text_panics(text in ".*", to in ".{0,40}") {
            let _ = read(&keys("k"), "old", &text);
            let _ = read(&keys("k"), "old", &format!("{{\"movedTo\":\"{to}\"}}"));
        }
    }
}
