//! How the member `session` of a document represents a session: connect-mongo's options
//! `stringify` and `crypto`.

use mongodb::bson::Bson;

use super::crypto::Cipher;
use super::value;
use crate::store::StoreError;

/// What the member `session` is made of.
pub(super) enum Format {
    /// JSON text.
    Text,
    /// A document, whose cookie has all nine settings.
    Document,
    /// Encrypted JSON text.
    Encrypted(Cipher),
}

impl Format {
    /// Whether the same text is always written in the same way, so that the server can
    /// compare it.
    pub(super) fn is_comparable(&self) -> bool {
        matches!(self, Self::Text)
    }

    /// The session's JSON text. A session that cannot be read has an empty one, which the
    /// component calls damaged.
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
            // A document is read whatever is written: connect-mongodb-session's are such.
            (_, Some(Bson::Document(document))) => value::document_text(document),
            (_, Some(Bson::String(text))) => text.clone(),
            _ => String::new(),
        }
    }

    /// The member for a session's JSON text. Of `old`, the member that it replaces, what has
    /// not changed is kept as it is: JSON has not all the types that a document may have.
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
