//! express-session's rules for when a session is stored, when it is only touched, and when its
//! cookie is sent.

use crate::options::Options;
use crate::wit::Millis;

/// The inputs of the rules.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    /// Whether the browser does not have this identifier yet.
    pub(crate) is_new: bool,
    /// Whether the request changed the session.
    pub(crate) modified: bool,
    /// Whether the cookie has an expiry.
    pub(crate) expires: bool,
}

/// The operation that the store performs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Storage {
    Save,
    Touch,
    Leave,
}

/// Whether the session is saved, touched, or neither.
pub(crate) fn storage(options: &Options, facts: Facts) -> Storage {
    if facts.is_new {
        if facts.modified || options.save_uninitialized { Storage::Save } else { Storage::Leave }
    } else if facts.modified || options.resave {
        Storage::Save
    } else {
        Storage::Touch
    }
}

/// Whether a Set-Cookie is sent. (In addition, a Secure cookie is withheld from insecure requests.)
pub(crate) fn sends_cookie(options: &Options, facts: Facts) -> bool {
    if facts.is_new {
        facts.modified || options.save_uninitialized
    } else {
        options.rolling || (facts.expires && facts.modified)
    }
}

/// connect-mongo's `touchAfter`: whether the last touch of a session with this lifetime is too
/// recent for another.
pub(crate) fn was_touched_recently(
    options: &Options,
    lifetime: Millis,
    last_touch: Option<Millis>,
    now: Millis,
) -> bool {
    let pause = options.touch_pause(lifetime);
    last_touch.is_some_and(|last_touch| now.saturating_sub(last_touch) < pause)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Preset, defaults};

    /// Returns the results for every `[is_new, modified, expires]`.
    fn table(options: &Options) -> Vec<(Storage, bool)> {
        (0..8)
            .map(|bits| {
                let facts = Facts {
                    is_new: bits & 4 != 0,
                    modified: bits & 2 != 0,
                    expires: bits & 1 != 0,
                };
                (storage(options, facts), sends_cookie(options, facts))
            })
            .collect()
    }

    #[test]
    fn the_safe_preset_stores_what_changed() {
        use Storage::{Leave, Save, Touch};
        assert_eq!(
            table(&defaults(Preset::Safe)),
            [
                (Touch, false),
                (Touch, false),
                (Save, false),
                (Save, true),
                (Leave, false),
                (Leave, false),
                (Save, true),
                (Save, true),
            ]
        );
    }

    #[test]
    fn the_express_preset_stores_everything() {
        use Storage::Save;
        assert_eq!(
            table(&defaults(Preset::Express)),
            [
                (Save, false),
                (Save, false),
                (Save, false),
                (Save, true),
                (Save, true),
                (Save, true),
                (Save, true),
                (Save, true),
            ]
        );
    }

    #[test]
    fn rolling_sends_the_cookie_of_every_known_session() {
        let options = Options { rolling: true, ..defaults(Preset::Safe) };
        assert!(table(&options)[..4].iter().all(|(_, sent)| *sent));
        assert!(!table(&options)[4].1);
    }

    const MINUTE: Millis = 60_000;

    #[test]
    fn touch_after_counts_from_the_last_touch() {
        let options = Options { touch_after: Some(10), ..defaults(Preset::Safe) };
        let touched_at = 1_000_000;
        let recently = |now| was_touched_recently(&options, MINUTE, Some(touched_at), now);
        assert!(recently(touched_at) && recently(touched_at + 9_999));
        assert!(!recently(touched_at + 10_000));
        assert!(!was_touched_recently(&options, MINUTE, None, touched_at));
        let always = Options { touch_after: Some(0), ..options };
        assert!(!was_touched_recently(&always, MINUTE, Some(touched_at), touched_at));
    }

    #[test]
    fn by_default_a_touch_is_spared_for_a_minute_or_a_tenth_of_a_shorter_lifetime() {
        let safe = defaults(Preset::Safe);
        for (lifetime, pause) in [(MINUTE, 6000), (10 * MINUTE, MINUTE), (1000 * MINUTE, MINUTE)] {
            let recently = |now| was_touched_recently(&safe, lifetime, Some(MINUTE), now);
            assert!(recently(MINUTE + pause - 1), "{lifetime}");
            assert!(!recently(MINUTE + pause), "{lifetime}");
        }
        let express = defaults(Preset::Express);
        assert!(!was_touched_recently(&express, MINUTE, Some(MINUTE), MINUTE));
    }
}
