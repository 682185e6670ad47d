//! Session identifiers, made as express-session's `uid-safe` makes them.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

/// 192 random bits as 32 characters of base64url (RFC 4648, section 5).
pub(crate) fn from_random(bytes: [u8; 24]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_is_32_characters_of_base64url() {
        let id = from_random(std::array::from_fn(|i| 255 - i as u8 * 7));
        assert_eq!(id.len(), 32);
        assert!(id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
    }

    #[test]
    fn different_bytes_make_different_identifiers() {
        assert_ne!(from_random([0; 24]), from_random([1; 24]));
    }
}
