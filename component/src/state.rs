//! What the engine remembers between two calls, and its encoding in the contract's opaque `state`.

use crate::failure::misuse;
use crate::wit::{self, Failure, Origin};

/// The step that a request has reached. Some steps concern another session than the request's own:
/// `other`, the text of the state.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Phase {
    /// Loading a session. `other`: all sessions that the cookies name, as a JSON array; none if
    /// there is only one.
    Loading,
    /// Looking for a note about a missing session. `other`: as for `Loading`.
    Following,
    /// The application runs.
    Open,
    /// The application runs, in place of a session that has just moved. Changes fail.
    Late,
    Creating,
    /// `other`: the identifier that the session has moved to, if another request has moved it.
    Saving,
    Touching,
    /// `other`: as for `Saving`.
    Destroying,
    /// Moving the session to a new identifier, `other`.
    Moving,
    /// Deleting the new identifier, `other`, because another request ended or moved the session.
    Withdrawing,
    /// Looking for a note about the missing session `other`.
    Tracing,
    /// Loading the session `other`, which a note names.
    Joining,
    /// Nothing more is stored.
    Done,
}

const PHASES: [Phase; 13] = [
    Phase::Loading,
    Phase::Following,
    Phase::Open,
    Phase::Late,
    Phase::Creating,
    Phase::Saving,
    Phase::Touching,
    Phase::Destroying,
    Phase::Moving,
    Phase::Withdrawing,
    Phase::Tracing,
    Phase::Joining,
    Phase::Done,
];

const ORIGINS: [Origin; 8] = [
    Origin::Loaded,
    Origin::Absent,
    Origin::Malformed,
    Origin::Forged,
    Origin::Oversized,
    Origin::Unknown,
    Origin::Damaged,
    Origin::Detached,
];

impl Phase {
    /// Returns what the gateway was asked to do, for errors.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Loading | Self::Following => "the first load",
            Self::Open | Self::Late | Self::Done => "an empty plan",
            Self::Creating => "a create",
            Self::Saving => "a replace",
            Self::Touching => "a touch",
            Self::Destroying => "a delete",
            Self::Moving | Self::Withdrawing => "this write of a renewal",
            Self::Tracing | Self::Joining => "a load",
        }
    }
}

/// The state of a request, without its text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct State {
    pub(crate) phase: Phase,
    /// Where the session comes from.
    pub(crate) origin: Origin,
    /// Whether the request is secure, as defined by `options.proxy`.
    pub(crate) secure: bool,
    /// Whether the request carried a cookie with the configured name.
    pub(crate) presented: bool,
    /// Whether a moved session is already stored under its new identifier.
    pub(crate) is_stored: bool,
    /// Which of the cookies' sessions is being looked for.
    pub(crate) candidate: u8,
    /// The number of conflicts so far.
    pub(crate) conflicts: u8,
    /// The number of writes in the plan that is being performed.
    pub(crate) writes: u8,
}

// The bits, from the lowest: phase, origin, flags, candidate, conflicts, writes, and in the upper
// half the engine's fingerprint.
const ORIGIN: u32 = 4;
const SECURE: u32 = 8;
const PRESENTED: u32 = 9;
const STORED: u32 = 10;
const CANDIDATE: u32 = 12;
const CONFLICTS: u32 = 16;
const WRITES: u32 = 24;
const FINGERPRINT: u32 = 32;

impl State {
    pub(crate) fn new(phase: Phase, origin: Origin) -> Self {
        let (secure, presented, is_stored) = (false, false, false);
        let (candidate, conflicts, writes) = (0, 0, 0);
        Self { phase, origin, secure, presented, is_stored, candidate, conflicts, writes }
    }

    /// Encodes the state for the gateway. `fingerprint` names the options.
    pub(crate) fn write(self, fingerprint: u32, text: Option<String>) -> wit::State {
        let bits = self.phase as u64
            | (self.origin as u64) << ORIGIN
            | u64::from(self.secure) << SECURE
            | u64::from(self.presented) << PRESENTED
            | u64::from(self.is_stored) << STORED
            | u64::from(self.candidate) << CANDIDATE
            | u64::from(self.conflicts) << CONFLICTS
            | u64::from(self.writes) << WRITES
            | u64::from(fingerprint) << FINGERPRINT;
        wit::State { bits, text }
    }

    /// Decodes a state. One that this engine did not write is refused.
    pub(crate) fn read(fingerprint: u32, state: &wit::State) -> Result<Self, Failure> {
        let bits = state.bits;
        if bits >> FINGERPRINT != u64::from(fingerprint) {
            return Err(misuse("the state is one of other options"));
        }
        let low = |from: u32, width: u32| (bits >> from) as u8 & ((1u16 << width) - 1) as u8;
        let phase = PHASES.get(usize::from(low(0, 4)));
        let origin = ORIGINS.get(usize::from(low(ORIGIN, 4)));
        match (phase, origin) {
            (Some(phase), Some(origin)) => Ok(Self {
                phase: *phase,
                origin: *origin,
                secure: low(SECURE, 1) == 1,
                presented: low(PRESENTED, 1) == 1,
                is_stored: low(STORED, 1) == 1,
                candidate: low(CANDIDATE, 4),
                conflicts: low(CONFLICTS, 8),
                writes: low(WRITES, 8),
            }),
            _ => Err(misuse("the state was altered")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_state_is_read_as_it_was_written(
            phase in prop::sample::select(PHASES.to_vec()),
            origin in prop::sample::select(ORIGINS.to_vec()),
            flags: [bool; 3],
            candidate in 0..16u8,
            conflicts: u8,
            writes: u8,
            fingerprint: u32,
            other: u32,
        ) {
            let [secure, presented, is_stored] = flags;
            let state =
                State { phase, origin, secure, presented, is_stored, candidate, conflicts, writes };
            let written = state.write(fingerprint, None);
            prop_assert_eq!(State::read(fingerprint, &written).ok(), Some(state));
            prop_assert_eq!(State::read(other, &written).is_ok(), other == fingerprint);
        }

        #[test]
        fn no_bits_panic(bits: u64, fingerprint: u32) {
            let low = bits & 0xffff_ffff;
            let bits = u64::from(fingerprint) << FINGERPRINT | low;
            if let Ok(state) = State::read(fingerprint, &wit::State { bits, text: None }) {
                // Bit 11 has no meaning.
                prop_assert_eq!(state.write(fingerprint, None).bits, bits & !(1 << 11));
            }
        }
    }
}
