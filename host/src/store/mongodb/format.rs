//! How a document's member `session` represents a session: connect-mongo's options `stringify` and
//! `crypto`.

use mongodb::bson::Bson;

use super::crypto::Cipher;
use super::value;
use crate::store::StoreError;

/// The representation of the member `session`.
pub(super) enum Format {
    /// JSON text.
    Text,
    /// A document whose cookie has all nine settings.
    Document,
    /// Encrypted JSON text.
    Encrypted(Cipher),
}

impl Format {
    /// Returns whether equal texts are always written identically, so that the server can compare
    /// them.
    pub(super) fn is_comparable(&self) -> bool {
        matches!(self, Self::Text)
    }

    /// Returns the session's JSON text. An unreadable session yields an empty text, which the
    /// component reports as damaged.
    pub(super) async fn read(&self, session: Option<&Bson>) -> String {
        match (self, session) {
            (Self::Encrypted(cipher), Some(Bson::String(text))) => {
                cipher.decrypt(text).await.unwrap_or_else(|why| {
                    tracing::warn!("a stored session cannot be decrypted: {why}");
                    String::new()
                })
            }
            (Self::Encrypted(_), _) => {
                tracing::warn!("a stored session is not encrypted, and is not trusted");
                String::new()
            }
            // Documents are read regardless of the written format, for example those of
            // connect-mongodb-session.
            (_, Some(Bson::Document(document))) => value::document_text(document),
            (_, Some(Bson::String(text))) => text.clone(),
            _ => String::new(),
        }
    }

    /// Returns the member for a session's JSON text. Unchanged parts of `old`, the member that it
    /// replaces, are kept, because JSON lacks some of the types that a document may have.
    pub(super) async fn write(&self, text: String, old: Option<&Bson>) -> Result<Bson, StoreError> {
        match self {
            Self::Text => Ok(Bson::String(text)),
            Self::Document => {
                let old = old.and_then(Bson::as_document);
                value::session_document(&text, old).map(Bson::Document).map_err(|why| {
                    StoreError::refused(format!("a session cannot be written as a document: {why}"))
                })
            }
            Self::Encrypted(cipher) => Ok(Bson::String(cipher.encrypt(&text).await?)),
        }
    }
}
