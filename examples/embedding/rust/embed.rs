use crate::engine::*;
use crate::store::{Sessions, perform};
use crate::{Engine, Result};

pub struct Gateway {
    pub engine: Engine,
    pub sessions: Sessions,
}

impl Gateway {
    /// The loop, up to `ready` or `done`.
    fn run(&mut self, mut step: Step, known: &mut Known, change: Option<&Change>) -> Result<Step> {
        while let Step::Store(Pending { request, exchange, on_done }) = step {
            step = match (perform(&mut self.sessions, request, &exchange.id, known), on_done) {
                (StoreReply::Done, Some(outcome)) => Step::Done(outcome),
                (reply, _) => self.engine.resume(&exchange, known, change, &reply)?,
            };
        }
        Ok(step)
    }

    /// One request of a view counter, from its Cookie header to the page and the outcome: what
    /// it says of Set-Cookie, of Cache-Control, and of an error to be answered instead.
    pub fn visit(&mut self, cookies: Vec<Vec<u8>>) -> Result<(Option<String>, Outcome)> {
        let known = &mut Known { loaded: None, current: None };
        let (path, tls, secure, forwarded_proto) = ("/".to_owned(), false, false, None);
        let step = self.engine.begin(&Request { cookies, path, tls, secure, forwarded_proto })?;
        let Session { exchange, data, .. } = match self.run(step, known, None)? {
            Step::Ready(session) => session,
            Step::Done(outcome) => return Ok((None, outcome)), // no session here, or a failure
            Step::Store(_) => unreachable!(),
        };

        let data: serde_json::Value = serde_json::from_str(&data)?;
        let visits = data["visits"].as_u64().unwrap_or(0) + 1;
        let edits = vec![Edit { key: "visits".to_owned(), value: Some(visits.to_string()) }];
        let data = DataChange::Edits(edits);
        let change = Change { action: Action::Keep, data, cookie: vec![] };

        let step = self.engine.finish(&exchange, known, &change)?;
        let Step::Done(outcome) = self.run(step, known, Some(&change))? else { unreachable!() };
        Ok((Some(format!("{visits} visits")), outcome))
    }
}
