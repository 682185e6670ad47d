//! The store, its faults, and what the simulation knows about sessions.

use std::collections::{HashMap, HashSet};

use edge_session_component::wit::{Obstacle, Operation, Stored, Write};

use crate::history::Fault;

/// A session from its beginning to its end, under whatever identifiers.
pub(crate) type Lineage = usize;

#[derive(Default)]
pub(crate) struct Store {
    sessions: HashMap<String, Stored>,
    /// To which session an identifier belongs.
    lineages: HashMap<String, Lineage>,
    /// Identifiers that were to be deleted, and may be there because the store failed or the
    /// gateway stopped.
    left_over: HashSet<String>,
}

impl Store {
    /// Returns a session that has not expired.
    fn find(&self, id: &str, now: u64) -> Option<&Stored> {
        self.sessions.get(id).filter(|it| it.expires.is_none_or(|expires| expires > now))
    }

    pub(crate) fn load(&self, id: &str, fault: Fault, now: u64) -> Result<Option<Stored>, String> {
        match fault {
            Fault::None => Ok(self.find(id, now).cloned()),
            Fault::Before | Fault::After => Err("down".to_owned()),
        }
    }

    /// Performs a write of a request that works on the session `lineage`.
    pub(crate) fn perform(
        &mut self,
        write: &Write,
        seen: Option<&Stored>,
        lineage: Lineage,
        fault: Fault,
        now: u64,
    ) -> Result<(), Obstacle> {
        let down = || Obstacle::Unavailable("down".to_owned());
        if fault == Fault::Before {
            return Err(down());
        }
        let found = self.find(&write.id, now).cloned();
        if write.if_unchanged && found.as_ref().map(|it| &it.data) != seen.map(|it| &it.data) {
            let obstacle = found.map_or(Obstacle::Missing, Obstacle::Conflict);
            return Err(if fault == Fault::None { obstacle } else { down() });
        }
        let done = match (&write.operation, found) {
            (Operation::Create(_), Some(_)) => Err(Obstacle::Taken),
            (Operation::Create(new) | Operation::Replace(new), _) => {
                let (data, expires) = (new.data.clone(), Some(new.expires));
                self.sessions.insert(write.id.clone(), Stored { data, expires, touched: None });
                self.lineages.entry(write.id.clone()).or_insert(lineage);
                Ok(())
            }
            (Operation::Load, found) => Err(found.map_or(Obstacle::Missing, Obstacle::Conflict)),
            (Operation::Touch(_) | Operation::Delete, None) => Err(Obstacle::Missing),
            (Operation::Touch(expires), Some(found)) => {
                let touched = Stored { expires: Some(*expires), ..found };
                self.sessions.insert(write.id.clone(), touched);
                Ok(())
            }
            (Operation::Delete, Some(_)) => {
                self.sessions.remove(&write.id);
                self.left_over.remove(&write.id);
                Ok(())
            }
        };
        if fault == Fault::None { done } else { Err(down()) }
    }

    /// Of these writes, it is not known which were performed.
    pub(crate) fn abandon(&mut self, writes: &[Write]) {
        self.left_over.extend(writes.iter().map(|it| it.id.clone()));
    }

    pub(crate) fn lineage(&self, id: &str) -> Option<Lineage> {
        self.lineages.get(id).copied()
    }

    pub(crate) fn is_left_over(&self, id: &str) -> bool {
        self.left_over.contains(id)
    }

    /// Returns whether a session of this lineage has a member, as JSON text.
    pub(crate) fn has(&self, lineage: Lineage, member: &str, now: u64) -> bool {
        let mut ids = self.lineages.iter().filter(|(_, it)| **it == lineage).map(|(id, _)| id);
        ids.any(|id| self.find(id, now).is_some_and(|it| it.data.contains(member)))
    }
}
