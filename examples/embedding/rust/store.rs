use std::collections::HashMap;
use std::time::UNIX_EPOCH;

use crate::engine::StoreRequest::{Create, Delete, Load, Replace, Touch};
use crate::engine::*;

pub type Sessions = HashMap<String, Stored>;

/// The five store operations, on a map.
pub fn perform(
    sessions: &mut Sessions,
    request: StoreRequest,
    id: &str,
    known: &mut Known,
) -> StoreReply {
    let now = UNIX_EPOCH.elapsed().unwrap_or_default().as_millis() as u64;
    let found = sessions.get(id).filter(|it| it.expires > Some(now)).cloned();
    let last = known.current.as_ref().or(known.loaded.as_ref());
    let is_known = found.as_ref().map(|it| &it.data) == last.map(|it| &it.data);
    let only_known = match &request {
        Replace(replacement) => replacement.only_known,
        Delete(only_known) => *only_known,
        _ => false,
    };
    let (data, expires) = match (request, found) {
        (Load, Some(found)) => {
            known.loaded = Some(found);
            return StoreReply::Found;
        }
        (Create(_), Some(_)) => return StoreReply::Taken,
        (Load | Touch(_) | Delete(_), None) => return StoreReply::Missing,
        (Replace(_), None) if only_known => return StoreReply::Missing,
        (_, found) if only_known && !is_known => {
            known.current = found;
            return StoreReply::Conflict;
        }
        (Delete(_), _) => {
            sessions.remove(id);
            return StoreReply::Done;
        }
        (Touch(expires), Some(found)) => (found.data, expires),
        (Create(new) | Replace(Replacement { content: new, .. }), _) => (new.data, new.expires),
    };
    sessions.insert(id.to_owned(), Stored { data, expires: Some(expires), touched: None });
    StoreReply::Done
}
