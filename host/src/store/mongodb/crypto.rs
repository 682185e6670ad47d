//! Encrypted sessions, in both of connect-mongo's formats: its option `crypto`, implemented by
//! kruptein, and its WebCrypto adapter. Both use AES-256-GCM.

use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lru::LruCache;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::{hmac, pbkdf2};

use super::envelope::Envelope;
use crate::store::StoreError;

/// Which of connect-mongo's two formats encrypted sessions use.
#[derive(Clone, Copy, Debug, PartialEq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CryptoFormat {
    /// `crypto: {secret}`: kruptein with connect-mongo's defaults.
    Kruptein,
    /// `cryptoAdapter: createWebCryptoAdapter({secret})` with its defaults.
    WebCrypto,
}

/// How sessions are encrypted in the database.
#[derive(Clone)]
pub struct Crypto {
    /// The format.
    pub format: CryptoFormat,
    /// The secret that the key is derived from.
    pub secret: Vec<u8>,
}

impl std::fmt::Debug for Crypto {
    /// Omits the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Crypto").field("format", &self.format).finish_non_exhaustive()
    }
}

/// The salt of every key in connect-mongo's WebCrypto format.
const WEB_SALT: &[u8] = b"connect-mongo:webcrypto-default-salt";
const WEB_ITERATIONS: NonZeroU32 = NonZeroU32::new(310_000).unwrap();

const KRUPTEIN_ITERATIONS: NonZeroU32 = NonZeroU32::new(15_000).unwrap();
const KRUPTEIN_SALT: usize = 128;
const KRUPTEIN_AAD: usize = 64;

/// How many kruptein keys are cached: each salt has its own, and deriving one takes about 10 ms.
const KEPT_KEYS: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// Encrypts and decrypts sessions.
pub(super) enum Cipher {
    Kruptein(Arc<Kruptein>),
    WebCrypto(Box<LessSafeKey>),
}

impl Cipher {
    /// Derives the key, which takes a fraction of a second.
    pub(super) async fn new(crypto: Crypto) -> Result<Self, StoreError> {
        let made = tokio::task::spawn_blocking(move || match crypto.format {
            CryptoFormat::Kruptein => {
                let kruptein = Kruptein::new(crypto.secret)?;
                Ok(Self::Kruptein(Arc::new(kruptein)))
            }
            CryptoFormat::WebCrypto => {
                let mut key = [0; 32];
                let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
                pbkdf2::derive(algorithm, WEB_ITERATIONS, WEB_SALT, &crypto.secret, &mut key);
                Ok(Self::WebCrypto(Box::new(aes(&key)?)))
            }
        });
        made.await.unwrap_or(Err("it was interrupted")).map_err(failed)
    }

    pub(super) async fn encrypt(&self, text: &str) -> Result<String, StoreError> {
        match self {
            Self::WebCrypto(key) => {
                let iv = random::<NONCE_LEN>().map_err(failed)?;
                let mut bytes = text.as_bytes().to_vec();
                key.seal_in_place_append_tag(nonce(iv), Aad::empty(), &mut bytes)
                    .map_err(|_| failed("the session is too long"))?;
                bytes.splice(0..0, iv);
                Ok(STANDARD.encode(bytes))
            }
            Self::Kruptein(kruptein) => kruptein.encrypt(text).map_err(failed),
        }
    }

    /// Returns the session's text, or why it cannot be decrypted.
    pub(super) async fn decrypt(&self, text: &str) -> Result<String, &'static str> {
        let plain = match self {
            Self::WebCrypto(key) => {
                let mut bytes = STANDARD.decode(text).map_err(|_| NOT_OURS)?;
                let (iv, sealed) = bytes.split_first_chunk_mut::<NONCE_LEN>().ok_or(NOT_OURS)?;
                let plain = key
                    .open_in_place(nonce(*iv), Aad::empty(), sealed)
                    .map_err(|_| "it was modified, or the key is different")?;
                plain.to_vec()
            }
            Self::Kruptein(kruptein) => {
                let (kruptein, text) = (kruptein.clone(), text.to_owned());
                let opened = tokio::task::spawn_blocking(move || kruptein.decrypt(&text));
                opened.await.unwrap_or(Err("it was interrupted"))?
            }
        };
        let text = String::from_utf8(plain).map_err(|_| "it is not text")?;
        // connect-mongo encodes a text as JSON once more than a document.
        Ok(serde_json::from_str::<String>(&text).unwrap_or(text))
    }
}

const NOT_OURS: &str = "it is not of the configured format";

fn failed(why: &'static str) -> StoreError {
    StoreError::new(format!("encrypting a session failed: {why}"))
}

fn aes(key: &[u8; 32]) -> Result<LessSafeKey, &'static str> {
    UnboundKey::new(&AES_256_GCM, key).map(LessSafeKey::new).map_err(|_| "no AES-256-GCM key")
}

fn nonce(iv: [u8; NONCE_LEN]) -> Nonce {
    Nonce::assume_unique_for_key(iv)
}

fn random<const N: usize>() -> Result<[u8; N], &'static str> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| "no random numbers")?;
    Ok(bytes)
}

/// kruptein 3 with connect-mongo's options: a key from PBKDF2-HMAC-SHA512, and an HMAC-SHA512 over
/// the ciphertext in addition to the AES-GCM tag.
pub(super) struct Kruptein {
    secret: Vec<u8>,
    /// The key that this process encrypts with. kruptein uses a new salt for every session.
    own: Arc<Key>,
    /// Keys by the salts of sessions that were read.
    keys: Mutex<LruCache<Vec<u8>, Arc<Key>>>,
}

struct Key {
    salt: Vec<u8>,
    aes: LessSafeKey,
    hmac: hmac::Key,
}

impl Kruptein {
    fn new(secret: Vec<u8>) -> Result<Self, &'static str> {
        let own = Arc::new(derive(&secret, random::<KRUPTEIN_SALT>()?.to_vec())?);
        Ok(Self { secret, own, keys: Mutex::new(LruCache::new(KEPT_KEYS)) })
    }

    fn key(&self, salt: &[u8]) -> Result<Arc<Key>, &'static str> {
        if salt == self.own.salt {
            return Ok(self.own.clone());
        }
        let keys = || self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = keys().get(salt) {
            return Ok(key.clone());
        }
        let key = Arc::new(derive(&self.secret, salt.to_vec())?);
        keys().put(salt.to_vec(), key.clone());
        Ok(key)
    }

    fn encrypt(&self, text: &str) -> Result<String, &'static str> {
        // `JSON.stringify` of the text.
        let mut sealed = serde_json::Value::from(text).to_string().into_bytes();
        let (iv, aad) = (random::<NONCE_LEN>()?, random::<KRUPTEIN_AAD>()?);
        let tag = self
            .own
            .aes
            .seal_in_place_separate_tag(nonce(iv), Aad::from(aad), &mut sealed)
            .map_err(|_| "the session is too long")?;
        let ct = STANDARD.encode(&sealed);
        let envelope = Envelope {
            hmac: hmac::sign(&self.own.hmac, ct.as_bytes()).as_ref().to_vec(),
            ct,
            iv: iv.to_vec(),
            salt: self.own.salt.clone(),
            tag: tag.as_ref().to_vec(),
            aad: aad.to_vec(),
        };
        envelope.write().ok_or("the session is too long")
    }

    fn decrypt(&self, text: &str) -> Result<Vec<u8>, &'static str> {
        let envelope = Envelope::read(text).ok_or(NOT_OURS)?;
        let iv = envelope.iv.try_into().map_err(|_| NOT_OURS)?;
        let mut sealed = STANDARD.decode(&envelope.ct).map_err(|_| NOT_OURS)?;
        let key = self.key(&envelope.salt)?;
        let changed = "it was modified, or the key is different";
        hmac::verify(&key.hmac, envelope.ct.as_bytes(), &envelope.hmac).map_err(|_| changed)?;
        sealed.extend_from_slice(&envelope.tag);
        let plain = key
            .aes
            .open_in_place(nonce(iv), Aad::from(envelope.aad), &mut sealed)
            .map_err(|_| changed)?;
        Ok(plain.to_vec())
    }
}

fn derive(secret: &[u8], salt: Vec<u8>) -> Result<Key, &'static str> {
    let mut key = [0; 32];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA512, KRUPTEIN_ITERATIONS, &salt, secret, &mut key);
    Ok(Key { salt, aes: aes(&key)?, hmac: hmac::Key::new(hmac::HMAC_SHA512, &key) })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn cipher(format: CryptoFormat, secret: &str) -> Cipher {
        Cipher::new(Crypto { format, secret: secret.into() }).await.unwrap()
    }

    #[tokio::test]
    async fn what_was_encrypted_is_decrypted_with_the_same_secret_alone() {
        for format in [CryptoFormat::Kruptein, CryptoFormat::WebCrypto] {
            let text = "{\"cookie\":{},\"s\":\"\u{1F600} \\ud800\"}";
            let (one, same) = (cipher(format, "secret").await, cipher(format, "secret").await);
            let encrypted = one.encrypt(text).await.unwrap();
            assert_eq!(one.decrypt(&encrypted).await.unwrap(), text);
            assert_eq!(same.decrypt(&encrypted).await.unwrap(), text);
            assert_ne!(one.encrypt(text).await.unwrap(), encrypted);
            let other = cipher(format, "another").await;
            assert!(other.decrypt(&encrypted).await.unwrap_err().contains("the key is different"));
        }
    }

    #[tokio::test]
    async fn what_was_changed_or_cut_or_is_none_of_ours_is_refused() {
        for format in [CryptoFormat::Kruptein, CryptoFormat::WebCrypto] {
            let cipher = cipher(format, "secret").await;
            let encrypted = cipher.encrypt("{\"cookie\":{}}").await.unwrap();
            let bytes = STANDARD.decode(&encrypted).unwrap();
            for at in (0..bytes.len()).step_by(7) {
                let mut changed = bytes.clone();
                changed[at] ^= 1;
                assert!(cipher.decrypt(&STANDARD.encode(&changed)).await.is_err(), "{at}");
                assert!(cipher.decrypt(&STANDARD.encode(&bytes[..at])).await.is_err(), "{at}");
            }
            for text in ["", "{\"cookie\":{}}", "AAAA", "MAA="] {
                assert!(cipher.decrypt(text).await.is_err(), "{text}");
            }
        }
    }
}
