//! The text format of a session encrypted by kruptein.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use der::asn1::OctetStringRef;
use der::{Decode as _, Encode as _, Sequence};

/// The parts of the text.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Envelope {
    /// The ciphertext in base64, which the HMAC covers.
    pub(super) ct: String,
    pub(super) hmac: Vec<u8>,
    pub(super) iv: Vec<u8>,
    pub(super) salt: Vec<u8>,
    /// The AES-GCM tag.
    pub(super) tag: Vec<u8>,
    pub(super) aad: Vec<u8>,
}

/// Encoded in DER, and then in base64. The strings contain base64 themselves, except `iv`, `salt`
/// and the tag, `at`.
#[derive(Sequence)]
struct Encoded<'a> {
    ct: OctetStringRef<'a>,
    hmac: OctetStringRef<'a>,
    iv: OctetStringRef<'a>,
    salt: OctetStringRef<'a>,
    at: OctetStringRef<'a>,
    aad: OctetStringRef<'a>,
}

impl Envelope {
    /// Reads the parts of a text; none if kruptein did not write it.
    pub(super) fn read(text: &str) -> Option<Self> {
        let der = STANDARD.decode(text).ok()?;
        let encoded = Encoded::from_der(&der).ok()?;
        let base64 = |string: OctetStringRef<'_>| STANDARD.decode(string.as_bytes()).ok();
        Some(Self {
            ct: String::from_utf8(encoded.ct.as_bytes().to_vec()).ok()?,
            hmac: base64(encoded.hmac)?,
            iv: encoded.iv.as_bytes().to_vec(),
            salt: encoded.salt.as_bytes().to_vec(),
            tag: encoded.at.as_bytes().to_vec(),
            aad: base64(encoded.aad)?,
        })
    }

    /// Writes the text; none if it would be too long for DER.
    pub(super) fn write(&self) -> Option<String> {
        let (hmac, aad) = (STANDARD.encode(&self.hmac), STANDARD.encode(&self.aad));
        let encoded = Encoded {
            ct: OctetStringRef::new(self.ct.as_bytes()).ok()?,
            hmac: OctetStringRef::new(hmac.as_bytes()).ok()?,
            iv: OctetStringRef::new(&self.iv).ok()?,
            salt: OctetStringRef::new(&self.salt).ok()?,
            at: OctetStringRef::new(&self.tag).ok()?,
            aad: OctetStringRef::new(aad.as_bytes()).ok()?,
        };
        encoded.to_der().ok().map(|der| STANDARD.encode(der))
    }
}
