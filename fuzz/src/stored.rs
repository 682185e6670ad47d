//! Sessions in MongoDB's formats: as documents (`stringify: false`), or encrypted by kruptein.

#[path = "../../host/src/store/mongodb/envelope.rs"]
mod envelope;
#[path = "../../host/src/store/mongodb/value.rs"]
mod value;

use bson::{Bson, Document};
use serde_json::Value;

use self::envelope::Envelope;

/// Takes a BSON document or, if it is not valid, a session's text, encrypted or not.
pub fn document(data: &[u8]) {
    match Document::from_reader(data) {
        Ok(document) => check_document(&document),
        Err(_) => {
            if let Ok(text) = std::str::from_utf8(data) {
                check_text(text);
                check_encrypted(text);
            }
        }
    }
}

fn check_document(document: &Document) {
    let text = value::document_text(document);
    let read: Result<Value, _> = serde_json::from_str(&text);
    match read {
        Ok(read) => assert!(read.is_object()),
        // More than 127 levels deep: serde_json's limit.
        Err(error) => assert!(error.to_string().contains("recursion"), "{error}: {text}"),
    }
    // Unchanged values keep their type.
    let Ok(same) = value::session_document(&text, Some(document)) else { return };
    for (key, value) in &same {
        // The cookie is written anew; values are compared by their bytes, because NaN does not
        // equal itself.
        let bytes = |value: &Bson| bson::doc! { "": value }.to_vec().expect("it was BSON");
        let old = document.get(key).expect("no key is new");
        assert!(key == "cookie" || bytes(value) == bytes(old), "{key}: {value} was {old}");
    }
}

fn check_text(text: &str) {
    let Ok(document) = value::session_document(text, None) else { return };
    let text = value::document_text(&document);
    let again = value::session_document(&text, None).expect("what is written is read");
    assert_eq!(value::document_text(&again), text);
    document.to_vec().expect("what is written is BSON");
}

fn check_encrypted(text: &str) {
    // Whatever can be read has only one spelling.
    if let Some(envelope) = Envelope::read(text) {
        assert_eq!(envelope.write().as_deref(), Some(text));
    }
}
