use std::collections::HashMap;
use std::time::UNIX_EPOCH;

use crate::engine::{Obstacle, Operation, Stored, Write};

/// Sessions in a map.
#[derive(Default)]
pub struct Sessions(HashMap<String, Stored>);

impl Sessions {
    /// Loads a session that has not expired.
    pub fn load(&self, id: &str) -> Option<Stored> {
        let now = UNIX_EPOCH.elapsed().unwrap_or_default().as_millis() as u64;
        self.0.get(id).filter(|it| it.expires > Some(now)).cloned()
    }

    /// Performs a write; `seen` is the session as it was last seen.
    pub fn perform(&mut self, write: &Write, seen: &mut Option<Stored>) -> Result<(), Obstacle> {
        let found = self.load(&write.id);
        if write.if_unchanged
            && found.as_ref().map(|it| &it.data) != seen.as_ref().map(|it| &it.data)
        {
            seen.clone_from(&found);
            return Err(found.map_or(Obstacle::Missing, Obstacle::Conflict));
        }
        let (data, expires) = match (&write.operation, found) {
            (Operation::Create(_), Some(_)) => return Err(Obstacle::Taken),
            (Operation::Create(new) | Operation::Replace(new), _) => {
                (new.data.clone(), new.expires)
            }
            (_, None) => return Err(Obstacle::Missing),
            (Operation::Load, Some(found)) => {
                *seen = Some(found.clone());
                return Err(Obstacle::Conflict(found));
            }
            (Operation::Delete, Some(_)) => {
                self.0.remove(&write.id);
                return Ok(());
            }
            (Operation::Touch(expires), Some(found)) => (found.data, *expires),
        };
        let stored = Stored { data, expires: Some(expires), touched: None };
        self.0.insert(write.id.clone(), stored);
        Ok(())
    }
}
