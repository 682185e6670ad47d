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

/// connect-mongo's `touchAfter`: whether the last touch is too recent for another.
pub(crate) fn was_touched_recently(
    options: &Options,
    last_touch: Option<Millis>,
    now: Millis,
) -> bool {
    let pause = options.touch_after.saturating_mul(1000);
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

    #[test]
    fn touch_after_counts_from_the_last_touch() {
        let options = Options { touch_after: 10, ..defaults(Preset::Safe) };
        let touched_at = 1_000_000;
        let recently = |now| was_touched_recently(&options, Some(touched_at), now);
        assert!(recently(touched_at) && recently(touched_at + 9_999));
        assert!(!recently(touched_at + 10_000));
        assert!(!was_touched_recently(&options, None, touched_at));
        let always = defaults(Preset::Safe);
        assert!(!was_touched_recently(&always, Some(touched_at), touched_at));
    }
}
