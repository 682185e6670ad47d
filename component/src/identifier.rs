//! Session identifiers, in the format of express-session's `uid-safe`.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

/// Encodes 192 bits as 32 characters of base64url (RFC 4648, section 5).
pub(crate) fn of(bytes: [u8; 24]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Decodes an identifier made by [`of`].
pub(crate) fn bytes(id: &str) -> Option<[u8; 24]> {
    URL_SAFE_NO_PAD.decode(id).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_is_32_characters_of_base64url() {
        let id = of(std::array::from_fn(|i| 255 - i as u8 * 7));
        assert_eq!(id.len(), 32);
        assert!(id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
    }

    #[test]
    fn an_identifier_says_its_bytes() {
        let bytes = std::array::from_fn(|i| i as u8 * 11);
        assert_eq!(super::bytes(&of(bytes)), Some(bytes));
        for other in ["", "abc", "=", &"A".repeat(31), &"A".repeat(36)] {
            assert_eq!(super::bytes(other), None, "{other}");
        }
    }

    #[test]
    fn different_bytes_make_different_identifiers() {
        assert_ne!(of([0; 24]), of([1; 24]));
    }
}
