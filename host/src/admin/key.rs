//! What opens the sessions: the token, and the passes that browsers have for it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ring::hmac;
use tokio::time::sleep;

/// How long a login in a browser lasts.
pub(super) const LOGIN_LASTS: Duration = Duration::from_secs(8 * 60 * 60);

/// How long the answer to a wrong token takes, and how many of them wait: in all, and of one
/// address. That is fewer than requests may be at work, so that the right token finds a place.
const DELAY: Duration = Duration::from_secs(1);
const DELAYED: usize = 16;
const DELAYED_PER_ADDRESS: usize = 4;

/// Compares tokens and passes in a time that does not depend on them.
#[derive(Clone)]
pub(super) struct Key {
    comparison: hmac::Key,
    token: hmac::Tag,
    /// Signs passes; another one ends them all.
    passes: Arc<Mutex<hmac::Key>>,
    delayed: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// What became of a wrong token.
#[derive(Debug, PartialEq)]
pub(super) enum Wrong {
    Waited,
    TooMany,
}

fn random_key() -> hmac::Key {
    let secret: [u8; 32] = rand::random();
    hmac::Key::new(hmac::HMAC_SHA256, &secret)
}

impl Key {
    pub(super) fn new(token: &str) -> Self {
        let comparison = random_key();
        let token = hmac::sign(&comparison, token.as_bytes());
        let passes = Arc::new(Mutex::new(random_key()));
        Self { comparison, token, passes, delayed: Arc::default() }
    }

    pub(super) fn is_token(&self, given: &str) -> bool {
        hmac::verify(&self.comparison, given.as_bytes(), self.token.as_ref()).is_ok()
    }

    /// A pass for a browser: when it ends, and a signature of that.
    pub(super) fn pass(&self, now: SystemTime) -> String {
        let end = seconds(now + LOGIN_LASTS).to_string();
        let signature = self.sign(&end);
        format!("{end}.{signature}")
    }

    pub(super) fn is_pass(&self, given: &str, now: SystemTime) -> bool {
        let Some((end, signature)) = given.split_once('.') else { return false };
        // Signed once more, the comparison takes the same time whatever was given.
        let own = hmac::sign(&self.comparison, self.sign(end).as_bytes());
        let is_ours = hmac::verify(&self.comparison, signature.as_bytes(), own.as_ref()).is_ok();
        is_ours && end.parse::<u64>().is_ok_and(|end| seconds(now) < end)
    }

    pub(super) fn end_all_passes(&self) {
        *lock(&self.passes) = random_key();
    }

    fn sign(&self, end: &str) -> String {
        let tag = hmac::sign(&lock(&self.passes), end.as_bytes());
        tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Let somebody wait who gave a wrong token.
    pub(super) async fn wrong(&self, address: IpAddr) -> Wrong {
        let Some(_delayed) = Delayed::begin(&self.delayed, address) else { return Wrong::TooMany };
        sleep(DELAY).await;
        Wrong::Waited
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One who waits. Whoever leaves waits no more.
struct Delayed<'k> {
    all: &'k Mutex<HashMap<IpAddr, usize>>,
    address: IpAddr,
}

impl<'k> Delayed<'k> {
    fn begin(all: &'k Mutex<HashMap<IpAddr, usize>>, address: IpAddr) -> Option<Self> {
        let mut waiting = lock(all);
        let of_address = waiting.get(&address).copied().unwrap_or(0);
        if of_address >= DELAYED_PER_ADDRESS || waiting.values().sum::<usize>() >= DELAYED {
            return None;
        }
        waiting.insert(address, of_address + 1);
        Some(Self { all, address })
    }
}

impl Drop for Delayed<'_> {
    fn drop(&mut self) {
        let mut waiting = lock(self.all);
        if let Some(of_address) = waiting.get_mut(&self.address) {
            *of_address -= 1;
            if *of_address == 0 {
                waiting.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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

    #[tokio::test(start_paused = true)]
    async fn a_wrong_token_waits_and_no_more_wait_than_may() {
        let key = Key::new(TOKEN);
        let address = |last: usize| IpAddr::from([192, 0, 2, last as u8]);
        let start = Instant::now();
        let guess = |at: usize| {
            let key = key.clone();
            tokio::spawn(async move { key.wrong(address(at)).await })
        };
        let guesses: Vec<_> = (0..20).map(|_| guess(1)).collect();
        let others: Vec<_> = (2..50).map(guess).collect();
        let mut waited = [0, 0];
        for (at, all) in [guesses, others].into_iter().enumerate() {
            for one in all {
                waited[at] += usize::from(one.await.unwrap() == Wrong::Waited);
            }
        }
        assert_eq!(waited, [DELAYED_PER_ADDRESS, DELAYED - DELAYED_PER_ADDRESS]);
        assert_eq!(start.elapsed(), DELAY);
        assert!(lock(&key.delayed).is_empty());
    }
}
