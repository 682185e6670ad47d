//! Names for sessions in logs and for operators.

use ring::digest::{SHA256, digest};
use ring::hmac;

/// Gives each session a short name, a salted hash, that does not reveal its identifier. All
/// processes with the same secret give the same names.
#[derive(Clone)]
pub struct SessionHasher(hmac::Key);

/// Hexadecimal digits of a name: 48 bits distinguish the sessions of one site.
const DIGITS: usize = 12;

impl SessionHasher {
    /// Creates a hasher from `secret`, which signs cookies. The names do not reveal it.
    pub fn new(secret: &[u8]) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let salt = hmac::sign(&key, b"edge-session: names of sessions");
        Self(hmac::Key::new(hmac::HMAC_SHA256, salt.as_ref()))
    }

    /// Returns the name of the session with this identifier.
    pub fn name(&self, id: &str) -> String {
        self.name_of_digest(&sha256(id))
    }

    /// Returns the name of the session whose identifier has this SHA-256 in hexadecimal:
    /// [`crate::store::Entry::digest`].
    pub fn name_of_digest(&self, digest: &str) -> String {
        let mut name = hexadecimal(hmac::sign(&self.0, digest.as_bytes()).as_ref());
        name.truncate(DIGITS);
        name
    }
}

impl std::fmt::Debug for SessionHasher {
    /// Omits the salt.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionHasher").finish_non_exhaustive()
    }
}

/// Returns the SHA-256 of an identifier in hexadecimal.
pub(crate) fn sha256(id: &str) -> String {
    hexadecimal(digest(&SHA256, id.as_bytes()).as_ref())
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_depends_on_the_identifier_and_the_secret_only() {
        let hasher = SessionHasher::new(b"one secret");
        let name = hasher.name("an identifier");
        assert_eq!(name.len(), DIGITS);
        assert_eq!(SessionHasher::new(b"one secret").name("an identifier"), name);
        assert_ne!(SessionHasher::new(b"another one").name("an identifier"), name);
        assert_ne!(hasher.name("another identifier"), name);
        assert_eq!(hasher.name_of_digest(&sha256("an identifier")), name);
    }
}
