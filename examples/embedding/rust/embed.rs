use crate::engine::{Beginning, Change, Outcome, Request};
use crate::store::Sessions;
use crate::{Engine, Result};

/// One request, from its facts to its outcome: what it says of Set-Cookie and of Cache-Control.
/// None: the path has no session. An error has the status and the text of the response.
pub fn serve(
    (engine, sessions): (&mut Engine, &mut Sessions),
    request: &Request,
    application: impl FnOnce(&str) -> Change,
) -> Result<Option<Outcome>> {
    let (mut begun, mut stored) = (engine.begin(request)?, None);
    while let Beginning::Load(visit) = &begun {
        stored = sessions.load(&visit.id);
        begun = engine.loaded(visit, &stored)?;
    }
    let Beginning::Ready(session) = begun else { return Ok(None) };
    let change = application(session.text.as_ref().or(stored.as_ref().map(|it| &it.data)).unwrap());

    let mut plan = engine.finish(&session.visit, &stored, &change)?;
    let (mut at, mut seen) = (0, stored.clone());
    while let Some(write) = plan.writes.get(at) {
        at += 1;
        if let Err(obstacle) = sessions.perform(write, &mut seen) {
            plan = engine.resume(&plan.visit, &stored, &change, at - 1, &obstacle)?;
            at = 0;
        }
    }
    Ok(Some(plan.outcome))
}
