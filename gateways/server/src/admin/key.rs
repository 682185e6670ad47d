//! Access to the sessions: the token, and the passes that browsers get for it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderMap;
use http::header::AUTHORIZATION;
use ring::hmac;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;

use super::{CONNECTIONS, PER_CLIENT};
use crate::net::connections::client_of;
use crate::web::hexadecimal;

/// How long a login in a browser lasts.
pub(super) const LOGIN_LASTS: Duration = Duration::from_secs(8 * 60 * 60);

/// How many tokens of one client are compared concurrently, and for how long a wrong one keeps its
/// place, even if the request is dropped.
const COMPARED: usize = 4;
const DELAY: Duration = Duration::from_secs(1);

/// How many requests with tokens there may be of one client, and in total. Each of them keeps one of
/// the places for requests, of which those for metrics and health need some, too.
const OF_CLIENT: usize = PER_CLIENT - 2;
const IN_ALL: usize = CONNECTIONS / 2;

/// Compares tokens and passes in constant time.
#[derive(Clone)]
pub(crate) struct Key {
    comparison: hmac::Key,
    token: hmac::Tag,
    /// Signs passes; replacing the key invalidates all of them.
    passes: Arc<Mutex<hmac::Key>>,
    guesses: Arc<Guesses>,
}

/// Returns the token of a request's `Authorization`, which is not empty (RFC 6750, section 2.1).
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    // The scheme has no case (RFC 9110, section 11.1).
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

fn random_key() -> hmac::Key {
    let secret: [u8; 32] = rand::random();
    hmac::Key::new(hmac::HMAC_SHA256, &secret)
}

impl Key {
    pub(crate) fn new(token: &str) -> Self {
        let comparison = random_key();
        let token = hmac::sign(&comparison, token.as_bytes());
        let passes = Arc::new(Mutex::new(random_key()));
        Self { comparison, token, passes, guesses: Arc::default() }
    }

    /// Returns whether `given` is the token; none if too many tokens are waiting. The comparison
    /// waits for its turn, so that more requests do not mean more guesses.
    pub(super) async fn opens(&self, given: &str, address: IpAddr) -> Option<bool> {
        let mut guess = self.guesses.clone().guess(client_of(address))?;
        guess.turn().await;
        if self.is_token(given) {
            return Some(true);
        }
        let wait = async move {
            sleep(DELAY).await;
            drop(guess);
        };
        // A separate task ends on time even if the request is dropped. It cannot fail.
        let _ = tokio::spawn(wait).await;
        Some(false)
    }

    /// Returns whether `given` is the token, at once.
    pub(crate) fn is_token(&self, given: &str) -> bool {
        hmac::verify(&self.comparison, given.as_bytes(), self.token.as_ref()).is_ok()
    }

    /// Returns a pass for a browser: its expiry, with a signature.
    pub(super) fn pass(&self, now: SystemTime) -> String {
        let end = seconds(now + LOGIN_LASTS).to_string();
        let signature = self.sign(&end);
        format!("{end}.{signature}")
    }

    pub(super) fn is_pass(&self, given: &str, now: SystemTime) -> bool {
        let Some((end, signature)) = given.split_once('.') else { return false };
        // Comparing signatures takes the same time whatever was given.
        let own = hmac::sign(&self.comparison, self.sign(end).as_bytes());
        let is_ours = hmac::verify(&self.comparison, signature.as_bytes(), own.as_ref()).is_ok();
        is_ours && end.parse::<u64>().is_ok_and(|end| seconds(now) < end)
    }

    pub(super) fn end_all_passes(&self) {
        *lock(&self.passes) = random_key();
    }

    fn sign(&self, end: &str) -> String {
        let tag = hmac::sign(&lock(&self.passes), end.as_bytes());
        hexadecimal(tag.as_ref())
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The clients whose tokens are being compared, or wait for that.
#[derive(Default)]
struct Guesses(Mutex<HashMap<IpAddr, Client>>);

struct Client {
    tokens: usize,
    turns: Arc<Semaphore>,
}

impl Guesses {
    /// Takes a place for a token, if there is one.
    fn guess(self: Arc<Self>, address: IpAddr) -> Option<Guess> {
        let mut clients = lock(&self.0);
        let of_client = clients.get(&address).map_or(0, |client| client.tokens);
        let in_all: usize = clients.values().map(|client| client.tokens).sum();
        if of_client >= OF_CLIENT || in_all >= IN_ALL {
            return None;
        }
        let new = || Client { tokens: 0, turns: Semaphore::new(COMPARED).into() };
        let client = clients.entry(address).or_insert_with(new);
        client.tokens += 1;
        let turns = client.turns.clone();
        drop(clients);
        Some(Guess { all: self, address, turns, turn: None })
    }
}

/// A token that waits to be compared, or was. The client's entry is removed with its last one.
struct Guess {
    all: Arc<Guesses>,
    address: IpAddr,
    turns: Arc<Semaphore>,
    turn: Option<OwnedSemaphorePermit>,
}

impl Guess {
    /// Waits until the token may be compared.
    async fn turn(&mut self) {
        // The semaphore is never closed.
        self.turn = self.turns.clone().acquire_owned().await.ok();
    }
}

impl Drop for Guess {
    fn drop(&mut self) {
        let mut clients = lock(&self.all.0);
        let Some(client) = clients.get_mut(&self.address) else { return };
        client.tokens -= 1;
        if client.tokens == 0 {
            clients.remove(&self.address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use tokio::time::Instant;

    const TOKEN: &str = "a token that opens the admin page";

    #[test]
    fn a_pass_ends_after_hours_and_with_a_logout() {
        let (key, now) = (Key::new(TOKEN), SystemTime::now());
        let pass = key.pass(now);
        let nearly = now + LOGIN_LASTS - Duration::from_secs(2);
        assert!(key.is_pass(&pass, now) && key.is_pass(&pass, nearly));
        assert!(!key.is_pass(&pass, now + LOGIN_LASTS));
        let (end, signature) = pass.split_once('.').unwrap();
        let later = end.parse::<u64>().unwrap() + 1;
        for forged in [format!("{later}.{signature}"), format!("{end}."), end.into(), ".".into()] {
            assert!(!key.is_pass(&forged, now), "{forged}");
        }
        assert!(!Key::new(TOKEN).is_pass(&pass, now), "it is another process's");
        key.end_all_passes();
        assert!(!key.is_pass(&pass, now));
    }

    #[test]
    fn a_token_has_its_scheme_in_any_case() {
        let of = |value| bearer(&HeaderMap::from_iter([(AUTHORIZATION, value)])).map(str::to_owned);
        for (value, token) in [
            ("Bearer a-token", Some("a-token")),
            ("bearer  a-token ", Some("a-token")),
            ("BEARER ", None),
            ("Bearer", None),
            ("Basic a-token", None),
        ] {
            assert_eq!(of(HeaderValue::from_static(value)).as_deref(), token, "{value}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_tries_no_more_tokens_than_it_may_and_learns_nothing_by_leaving() {
        let key = Key::new(TOKEN);
        let [guesser, other] = [1, 2].map(|last| IpAddr::from([192, 0, 2, last]));
        let opens = |token: &'static str, address| {
            let key = key.clone();
            tokio::spawn(async move { key.opens(token, address).await })
        };
        let start = Instant::now();
        let guesses: Vec<_> = (1..OF_CLIENT).map(|_| opens("a wrong one", guesser)).collect();
        let right = opens(TOKEN, guesser);
        assert_eq!(opens(TOKEN, other).await.unwrap(), Some(true));
        assert_eq!(start.elapsed(), Duration::ZERO, "nobody else waits");
        // Comparisons keep their places; waiting requests give theirs up.
        guesses.iter().for_each(|guess| guess.abort());
        assert_eq!(right.await.unwrap(), Some(true));
        assert_eq!(start.elapsed(), DELAY, "the right one tells no sooner");
        for _ in 0..9 {
            assert_eq!(opens("a wrong one", guesser).await.unwrap(), Some(false));
        }
        assert_eq!(start.elapsed(), 10 * DELAY);
        assert!(lock(&key.guesses.0).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn there_are_no_more_tokens_than_leave_places_for_other_requests() {
        let key = Key::new(TOKEN);
        let opens = |address: u8| {
            let key = key.clone();
            tokio::spawn(async move {
                key.opens("a wrong one", IpAddr::from([192, 0, 2, address])).await
            })
        };
        let start = Instant::now();
        let of_one: Vec<_> = (0..OF_CLIENT + 1).map(|_| opens(0)).collect();
        let others: Vec<_> = (0..100).map(|at| opens(1 + at)).collect();
        let mut refused = 0;
        for guess in of_one.into_iter().chain(others) {
            refused += usize::from(guess.await.unwrap().is_none());
        }
        assert_eq!((refused, start.elapsed()), (1 + 100 + OF_CLIENT - IN_ALL, 4 * DELAY));
        assert!(lock(&key.guesses.0).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_network_of_ipv6_is_one_client() {
        let key = Key::new(TOKEN);
        let start = Instant::now();
        let guesses = (0..COMPARED + 1).map(|at| {
            let (key, address) = (key.clone(), format!("2001:db8::{at}").parse().unwrap());
            tokio::spawn(async move { key.opens("a wrong one", address).await })
        });
        for guess in guesses.collect::<Vec<_>>() {
            assert_eq!(guess.await.unwrap(), Some(false));
        }
        assert_eq!(start.elapsed(), 2 * DELAY);
    }
}
