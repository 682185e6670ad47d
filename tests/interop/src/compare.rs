//! Plays a case on both sides, step by step, and reports the first difference.

use crate::case::Case;
use crate::world::{Rig, Seen, World};

/// Plays `case` on both sides.
pub(crate) async fn compare(rig: &Rig, case: &Case) -> Result<(), String> {
    let mut theirs = World::new(rig, case, false)?;
    let mut ours = World::new(rig, case, true)?;
    let result = compare_steps(case, &mut theirs, &mut ours).await;
    theirs.clean().await;
    ours.clean().await;
    result
}

async fn compare_steps(
    case: &Case,
    theirs: &mut World<'_>,
    ours: &mut World<'_>,
) -> Result<(), String> {
    for (at, step) in case.steps.iter().enumerate() {
        let failed = |error| format!("in step {at}: {error}");
        let their_seen = theirs.step(step).await.map_err(failed)?;
        let our_seen = ours.step(step).await.map_err(failed)?;
        let (Some(mut theirs_saw), Some(mut ours_saw)) = (their_seen, our_seen) else { continue };
        if theirs_saw.error.is_some() {
            return crashed(&theirs_saw, &ours_saw).map_err(failed);
        }
        if theirs.is_foreign {
            // Numbers that JavaScript did not write are returned as they were written.
            (theirs_saw.data, ours_saw.data) = (None, None);
        }
        if theirs_saw != ours_saw {
            return Err(failed(format!("theirs: {theirs_saw:#?}\nours: {ours_saw:#?}")));
        }
    }
    Ok(())
}

/// Checks the result after express-session failed. edge-session need not fail, but its result is
/// defined.
fn crashed(theirs: &Seen, ours: &Seen) -> Result<(), String> {
    match ours.status {
        200 | 500 => Ok(()),
        other => Err(format!("they failed with {:?}, and we answered {other}", theirs.error)),
    }
}
