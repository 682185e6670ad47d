//! Signed values in the format of `cookie-signature` 1.0.7: `ID.SIGNATURE`, where the signature is
//! the HMAC-SHA256 (RFC 2104) of ID in standard base64 without padding.

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The secrets, with the part of HMAC that depends only on the key precomputed.
pub(crate) struct Keys(Vec<Hmac<Sha256>>);

impl Keys {
    /// Expects the newest secret first. The first one signs; all of them verify.
    pub(crate) fn new(secrets: &[Vec<u8>]) -> Self {
        let key = |secret: &Vec<u8>| {
            Hmac::new_from_slice(secret).expect("HMAC accepts keys of any length")
        };
        Self(secrets.iter().map(key).collect())
    }

    /// Returns `ID.SIGNATURE`, signed with the newest secret.
    pub(crate) fn sign(&self, id: &str) -> String {
        let mac = self.0[0].clone().chain_update(id).finalize().into_bytes();
        let mut signed = String::with_capacity(id.len() + 44);
        signed.push_str(id);
        signed.push('.');
        STANDARD_NO_PAD.encode_string(mac, &mut signed);
        signed
    }

    /// Derives bytes from `id` and the newest secret, different for every purpose. Without the
    /// secret, they are indistinguishable from random bytes.
    pub(crate) fn derive(&self, purpose: &str, id: &str) -> [u8; 24] {
        let mac = self.0[0].clone().chain_update(purpose).chain_update([0]).chain_update(id);
        let mac = mac.finalize().into_bytes();
        std::array::from_fn(|at| mac[at])
    }

    /// Returns the identifier in `signed` if one of the secrets signed it.
    ///
    /// Compares in constant time; cookie-signature compares SHA-1 digests instead. Base64 is
    /// decoded strictly, so that exactly one text verifies.
    pub(crate) fn unsign<'a>(&self, signed: &'a str) -> Option<&'a str> {
        let (id, signature) = signed.rsplit_once('.')?;
        let mut mac = [0; 33];
        let length = STANDARD_NO_PAD.decode_slice(signature, &mut mac).ok()?;
        let verifies =
            |key: &Hmac<Sha256>| key.clone().chain_update(id).verify_slice(&mac[..length]).is_ok();
        self.0.iter().any(verifies).then_some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys(secrets: &[&str]) -> Keys {
        Keys::new(&secrets.iter().map(|s| s.as_bytes().to_vec()).collect::<Vec<_>>())
    }

    #[test]
    fn the_known_vector_is_reproduced() {
        let signed = keys(&["keyboard cat"]).sign("abcDEF-_123");
        assert_eq!(signed, "abcDEF-_123.urHr3thYxzD3tngcSgHw6yDZjYsI1Zsd2prhrQkJX4g");
    }

    #[test]
    fn an_older_secret_verifies_and_the_newest_signs() {
        let old = keys(&["old"]).sign("id");
        let both = keys(&["new", "old"]);
        assert_eq!(both.unsign(&old), Some("id"));
        assert_eq!(both.sign("id"), keys(&["new"]).sign("id"));
        assert_eq!(keys(&["new"]).unsign(&old), None);
    }

    #[test]
    fn an_identifier_with_dots_is_split_at_the_last_one() {
        let keys = keys(&["k"]);
        assert_eq!(keys.unsign(&keys.sign("a.b.c")), Some("a.b.c"));
    }

    #[test]
    fn what_is_derived_depends_on_the_secret_the_purpose_and_the_identifier() {
        let derived = keys(&["a", "b"]).derive("p", "id");
        assert_eq!(derived, keys(&["a"]).derive("p", "id"));
        assert_ne!(derived, keys(&["b"]).derive("p", "id"));
        assert_ne!(derived, keys(&["a"]).derive("q", "id"));
        assert_ne!(derived, keys(&["a"]).derive("p", "ie"));
        assert_ne!(derived, keys(&["a"]).derive("", "pid"));
    }

    #[test]
    fn a_noncanonical_base64_text_does_not_verify() {
        // The last base64 character of 32 bytes has 2 unused bits.
        let keys = keys(&["keyboard cat"]);
        let mut signed = keys.sign("abcDEF-_123");
        assert_eq!(signed.pop(), Some('g'));
        signed.push('h');
        assert_eq!(keys.unsign(&signed), None);
    }

    proptest! {
        #[test]
        fn what_is_signed_verifies(id in ".*", secret in proptest::collection::vec(any::<u8>(), 0..80)) {
            let keys = Keys::new(&[secret]);
            let signed = keys.sign(&id);
            prop_assert_eq!(keys.unsign(&signed), Some(id.as_str()));
        }

        #[test]
        fn anything_else_does_not(text in ".*") {
            prop_assert_eq!(keys(&["a secret that signed none of these"]).unsign(&text), None);
        }
    }
}
