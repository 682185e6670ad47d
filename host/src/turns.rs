//! Serializes the requests of this process that change the same session.
//!
//! A change is stored only if the stored text is still the one that it was made for. Concurrent
//! changes of one session would therefore make each other fail again and again: many writes that
//! store nothing. Instead, the first request gets the turn and later ones wait in order. The next
//! request gets the turn together with what its predecessor stored, which saves a read, and may
//! [take along](Turn::take) the jobs of other waiting requests.
//!
//! A queue exists only while a request is working on the session, so that there are never more
//! queues than requests.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::store::Stored;

/// How many requests may wait for one session; more are refused.
const MAX_WAITING: usize = 1024;

/// The requests that wait for each session whose turn is taken.
struct Lines<Job, Answer>(Mutex<HashMap<String, VecDeque<Waiting<Job, Answer>>>>);

impl<Job, Answer> Lines<Job, Answer> {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, VecDeque<Waiting<Job, Answer>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A waiting request.
pub(crate) struct Waiting<Job, Answer> {
    /// The job to do.
    pub(crate) job: Job,
    /// Ends the wait.
    pub(crate) word: oneshot::Sender<Word<Job, Answer>>,
    /// Identifies the request when it leaves.
    pub(crate) ticket: Ticket,
}

/// Identifies a waiting request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ticket(Arc<()>);

impl<Job, Answer> Waiting<Job, Answer> {
    /// Tells a waiting request that its job is done.
    pub(crate) fn tell(word: oneshot::Sender<Word<Job, Answer>>, answer: Answer) {
        // The receiver is gone: its request has timed out.
        let _ = word.send(Word::Answer(answer));
    }
}

/// How a wait ends.
pub(crate) enum Word<Job, Answer> {
    /// The turn, and the request's own job.
    Turn(Turn<Job, Answer>, Job),
    /// Another request has done the job.
    Answer(Answer),
    /// The rest of the job no longer concerns this session.
    Alone(Job),
}

/// The right to change a session. Dropping it passes it to the next request.
pub(crate) struct Turn<Job, Answer> {
    lines: Arc<Lines<Job, Answer>>,
    id: String,
    /// The stored session, if this process was the last to store it.
    pub(crate) left: Option<Arc<Stored>>,
}

/// The result of entering a queue.
pub(crate) enum Entered<Job, Answer> {
    /// No other request is working on the session.
    Turn(Turn<Job, Answer>, Job),
    /// Await the receiver, or leave the queue with the ticket: [`Turns::leave`].
    Waiting(oneshot::Receiver<Word<Job, Answer>>, Ticket),
    /// Too many requests are waiting.
    Full,
}

/// Hands out the turns.
pub(crate) struct Turns<Job, Answer>(Arc<Lines<Job, Answer>>);

impl<Job, Answer> Turns<Job, Answer> {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Lines(Mutex::default())))
    }

    /// Enters the queue of the session `id`.
    pub(crate) fn enter(&self, id: &str, job: Job) -> Entered<Job, Answer> {
        let mut lines = self.0.lock();
        let Some(line) = lines.get_mut(id) else {
            lines.insert(id.to_owned(), VecDeque::new());
            return Entered::Turn(
                Turn { lines: self.0.clone(), id: id.to_owned(), left: None },
                job,
            );
        };
        if line.len() >= MAX_WAITING {
            // Requests that have gone do not count.
            line.retain(|waiting| !waiting.word.is_closed());
            if line.len() >= MAX_WAITING {
                return Entered::Full;
            }
        }
        let (word, answer) = oneshot::channel();
        let ticket = Ticket::default();
        line.push_back(Waiting { job, word, ticket: ticket.clone() });
        Entered::Waiting(answer, ticket)
    }

    /// Leaves the queue. False: the job has been taken along or its turn has come, so the receiver
    /// will get a word.
    pub(crate) fn leave(&self, id: &str, ticket: &Ticket) -> bool {
        let mut lines = self.0.lock();
        let Some(line) = lines.get_mut(id) else { return false };
        let before = line.len();
        line.retain(|waiting| !Arc::ptr_eq(&waiting.ticket.0, &ticket.0));
        line.len() < before
    }
}

impl<Job, Answer> Turn<Job, Answer> {
    /// Returns whether the turn is for the session `id`.
    pub(crate) fn is_of(&self, id: &str) -> bool {
        self.id == id
    }

    /// Takes up to `most` of the next jobs, as long as they are `fit` to be done together.
    pub(crate) fn take(
        &mut self,
        most: usize,
        fit: impl Fn(&Job) -> bool,
    ) -> Vec<Waiting<Job, Answer>> {
        let mut taken = Vec::new();
        let mut lines = self.lines.lock();
        let Some(line) = lines.get_mut(&self.id) else { return taken };
        while taken.len() < most {
            let Some(next) = line.pop_front_if(|next| next.word.is_closed() || fit(&next.job))
            else {
                break;
            };
            if !next.word.is_closed() {
                taken.push(next);
            }
        }
        taken
    }

    /// Puts requests back at the front of the queue.
    pub(crate) fn put_back(&mut self, waiting: Vec<Waiting<Job, Answer>>) {
        let mut lines = self.lines.lock();
        if let Some(line) = lines.get_mut(&self.id) {
            waiting.into_iter().rev().for_each(|one| line.push_front(one));
        }
    }
}

impl<Job, Answer> Drop for Turn<Job, Answer> {
    fn drop(&mut self) {
        let next = {
            let mut lines = self.lines.lock();
            let next = lines.get_mut(&self.id).and_then(|line| {
                std::iter::from_fn(|| line.pop_front()).find(|next| !next.word.is_closed())
            });
            if next.is_none() {
                lines.remove(&self.id);
            }
            next
        };
        if let Some(Waiting { job, word, .. }) = next {
            let id = std::mem::take(&mut self.id);
            let turn = Self { lines: self.lines.clone(), id, left: self.left.take() };
            // If the receiver has just gone, the turn is dropped, which passes it on.
            let _ = word.send(Word::Turn(turn, job));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Line = Turns<u32, &'static str>;

    fn first(turns: &Line) -> Turn<u32, &'static str> {
        match turns.enter("a", 0) {
            Entered::Turn(turn, 0) => turn,
            _ => panic!("somebody is there"),
        }
    }

    fn waiting(turns: &Line, job: u32) -> oneshot::Receiver<Word<u32, &'static str>> {
        match turns.enter("a", job) {
            Entered::Waiting(answer, _) => answer,
            _ => panic!("nobody is there"),
        }
    }

    #[test]
    fn who_is_taken_along_cannot_leave() {
        let turns = Line::new();
        let mut turn = first(&turns);
        let Entered::Waiting(mut answer, ticket) = turns.enter("a", 1) else { panic!("no line") };
        let Entered::Waiting(mut next, its) = turns.enter("a", 2) else { panic!("no line") };
        let taken = turn.take(1, |_| true);
        assert!(!turns.leave("a", &ticket) && turns.leave("a", &its) && !turns.leave("a", &its));
        turn.put_back(taken);
        assert!(turns.leave("a", &ticket));
        assert!(answer.try_recv().is_err() && next.try_recv().is_err());
        drop(turn);
        assert!(!turns.leave("a", &ticket) && turns.0.lock().is_empty());
    }

    #[test]
    fn turns_are_had_in_the_order_of_coming_and_end_without_a_trace() {
        let turns = Line::new();
        let mut turn = first(&turns);
        let mut answers: Vec<_> = (1..4).map(|job| waiting(&turns, job)).collect();
        assert!(matches!(turns.enter("b", 0), Entered::Turn(..)), "another session is free");
        // A request that has gone is skipped.
        drop(answers.remove(1));
        let left = Arc::new(Stored { data: "text".into(), expires: None, touched: None });
        turn.left = Some(left.clone());
        drop(turn);
        let Ok(Word::Turn(turn, 1)) = answers[0].try_recv() else { panic!("not its turn") };
        assert_eq!(turn.left, Some(left.clone()));
        assert!(answers[1].try_recv().is_err());
        drop(turn);
        let Ok(Word::Turn(turn, 3)) = answers[1].try_recv() else { panic!("not its turn") };
        assert_eq!(turn.left, Some(left), "nothing else was stored meanwhile");
        drop(turn);
        assert!(turns.0.lock().is_empty());
    }

    #[test]
    fn a_turn_that_nobody_fetched_is_passed_on() {
        let turns = Line::new();
        let turn = first(&turns);
        let (leaving, mut staying) = (waiting(&turns, 1), waiting(&turns, 2));
        drop(turn);
        drop(leaving);
        assert!(matches!(staying.try_recv(), Ok(Word::Turn(_, 2))));
        assert!(turns.0.lock().is_empty());
    }

    #[test]
    fn jobs_are_taken_along_as_long_as_they_fit() {
        let turns = Line::new();
        let mut turn = first(&turns);
        let mut answers: Vec<_> = [2, 4, 5, 6].map(|job| waiting(&turns, job)).into();
        let jobs = |turn: &mut Turn<u32, &'static str>, most| {
            let taken = turn.take(most, |job| job % 2 == 0);
            (taken.iter().map(|it| it.job).collect::<Vec<_>>(), taken)
        };
        assert_eq!(jobs(&mut turn, 1).0, [2]);
        let (list, taken) = jobs(&mut turn, 9);
        assert_eq!(list, [4]);
        assert!(jobs(&mut turn, 9).0.is_empty(), "5 comes before 6");
        turn.put_back(taken);
        let (list, taken) = jobs(&mut turn, 9);
        assert_eq!(list, [4]);
        taken.into_iter().for_each(|it| Waiting::tell(it.word, "done"));
        assert!(matches!(answers[1].try_recv(), Ok(Word::Answer("done"))));
        drop(turn);
        assert!(matches!(answers[2].try_recv(), Ok(Word::Turn(_, 5))));
    }

    #[test]
    fn no_more_wait_than_the_bound() {
        let turns = Line::new();
        let turn = first(&turns);
        let mut answers: Vec<_> = (0..MAX_WAITING as u32).map(|job| waiting(&turns, job)).collect();
        assert!(matches!(turns.enter("a", 0), Entered::Full));
        answers.pop();
        answers.push(waiting(&turns, 1));
        assert!(matches!(turns.enter("a", 0), Entered::Full));
        drop(turn);
    }
}
