//! Calls the component, and performs the store operations that it asks for.

use std::future::poll_fn;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use edge_session_component::failure::{failed, unavailable};
use edge_session_component::wit;
use lru::LruCache;
use rand::RngExt as _;
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::{Instant, interval, sleep, timeout};

use crate::counters::{Counters, event_name, origin_name};
use crate::engine::{Engine, LARGE, Loaded, Logic};
use crate::error::{OptionsError, trapped};
use crate::hasher::SessionHasher;
use crate::store::{Content, Store, Stored};
use crate::timed_store::TimedStore;
use crate::turns::{Entered, Turns, Waiting, Word};
use crate::{InForce, Options};

/// The longest time that a request waits for its turn while others change the same session.
const PATIENCE: Duration = Duration::from_secs(5);

/// If more requests wait for the same load, they continue one by one, [`PACE`] apart.
const CROWD: usize = 64;

/// The time between two requests of a crowd: 2,000 per second. Without it, they take a whole core,
/// and the requests of other sessions wait for it.
const PACE: Duration = Duration::from_micros(500);

/// How many changes of waiting requests one write stores in addition to the first.
const TAKEN_ALONG: usize = 63;

/// The longest pause after a second conflict with another process. It doubles with each further
/// conflict, up to [`LONGEST_PAUSE`].
const PAUSE: Duration = Duration::from_millis(4);

/// The upper bound of [`PAUSE`] after many conflicts.
const LONGEST_PAUSE: Duration = Duration::from_millis(256);

/// How many large unreadable sessions are remembered, and for how long. Fetching and reading one
/// takes milliseconds to no avail and delays other requests.
const UNREADABLE: NonZeroUsize = NonZeroUsize::new(1024).unwrap();
const UNREADABLE_FOR: Duration = Duration::from_secs(10);

/// Joins the component and a store.
pub(crate) struct Driver {
    engine: Engine,
    store: TimedStore,
    counters: Arc<Counters>,
    hasher: SessionHasher,
    turns: Turns<Job, Answer>,
    loads: Turns<(), Loaded>,
    /// Whether the warning about an unsent cookie was logged.
    is_insecure_told: AtomicBool,
    /// Large sessions that could not be read, and when.
    unreadable: Mutex<LruCache<String, Instant>>,
}

/// The result of a request.
pub(crate) type Answer = Result<wit::Outcome, wit::Failure>;

/// A request's plan, as the component has decided it.
struct Job {
    /// The session as it was loaded.
    stored: Option<Arc<Stored>>,
    /// The application's change.
    change: Arc<wit::Change>,
    plan: wit::Plan,
    /// The write to perform next.
    at: usize,
    /// The session as it was last seen in the store.
    seen: Option<Arc<Stored>>,
    /// Whether the plan still holds. It does not if the change was to be stored together with
    /// others and was not.
    is_decided: bool,
}

type Turn = crate::turns::Turn<Job, Answer>;

impl Job {
    /// Returns the next write; none after the last one.
    fn next(&self) -> Option<&wit::Write> {
        self.plan.writes.get(self.at)
    }

    /// Returns whether concurrent changes of the session can make the next write fail.
    fn is_conditional(&self) -> bool {
        self.next().is_some_and(|it| it.if_unchanged)
    }

    /// Returns whether it stores a change in place of the known session.
    fn is_save(&self) -> bool {
        self.next()
            .is_some_and(|it| it.if_unchanged && matches!(it.operation, wit::Operation::Replace(_)))
    }

    /// Takes the next write's operation, which is performed once.
    fn take_operation(&mut self) -> wit::Operation {
        let taken = wit::Operation::Delete;
        match self.plan.writes.get_mut(self.at) {
            Some(next) => std::mem::replace(&mut next.operation, taken),
            None => taken,
        }
    }

    /// Takes the content that a save stores.
    fn take_content(&mut self) -> Option<Content> {
        let content = match &mut self.plan.writes.get_mut(self.at)?.operation {
            wit::Operation::Replace(content) => content,
            _ => return None,
        };
        Some(Content { data: std::mem::take(&mut content.data), ..*content })
    }
}

/// The result of beginning a request.
pub(crate) enum Begun {
    /// The application may use this session. `finish` needs what the store returned.
    Session(wit::Session, Option<Arc<Stored>>),
    /// The path has no session.
    None,
    /// The request cannot be answered.
    Failed(wit::Failure),
}

impl Driver {
    pub(crate) fn new(
        logic: Logic,
        options: Options,
        store: Arc<dyn Store>,
        deadline: Duration,
    ) -> Result<Self, OptionsError> {
        // A configuration without a secret is refused below.
        let hasher = SessionHasher::new(options.newest_secret());
        let engine = Engine::open(logic, &options)?;
        let counters = Arc::new(Counters::new(store.name()));
        let store = TimedStore::new(store, deadline, counters.clone());
        let (turns, loads) = (Turns::new(), Turns::new());
        let unreadable = Mutex::new(LruCache::new(UNREADABLE));
        let is_insecure_told = AtomicBool::new(false);
        Ok(Self { engine, store, counters, hasher, turns, loads, is_insecure_told, unreadable })
    }

    /// Begins a request. With `reads_only`, a missing session is not created.
    pub(crate) async fn begin(&self, request: wit::Request, reads_only: bool) -> Begun {
        let mut stored = None;
        let (mut unavailable, mut large) = (None, None);
        let mut beginning = self.engine.begin(request);
        let session = loop {
            beginning = match beginning {
                Ok(wit::Beginning::Load(visit)) => {
                    let loaded = self.load(&visit.id).await;
                    match &loaded {
                        Ok(Some(stored)) if stored.data.len() > LARGE => {
                            large = Some(visit.id.clone());
                        }
                        Ok(_) => {}
                        Err(why) => unavailable = Some(why.clone()),
                    }
                    stored = loaded.clone().unwrap_or_default();
                    self.engine.loaded(visit, loaded).await
                }
                Ok(wit::Beginning::Ready(session)) => break session,
                Ok(wit::Beginning::None) => return Begun::None,
                Err(failure) => {
                    self.report(&failure);
                    return Begun::Failed(failure);
                }
            };
        };
        self.counters.begun(session.origin);
        let origin = origin_name(session.origin);
        match session.origin {
            wit::Origin::Loaded | wit::Origin::Absent => {}
            wit::Origin::Damaged => {
                tracing::warn!(
                    origin,
                    "a stored session cannot be read or exceeds the limits, and is left unchanged"
                );
                // The damaged data is not used, and may be large.
                stored = None;
                // If another program owns the sessions, they may become readable at any time.
                if let Some(id) = large.filter(|_| !reads_only) {
                    self.unreadable().put(id, Instant::now());
                }
            }
            wit::Origin::Detached => {
                let why = unavailable.unwrap_or_default();
                tracing::error!("a request continues without its session: {why}");
            }
            _ if reads_only => tracing::debug!(origin, "there is no session"),
            _ => tracing::info!(origin, "a new session begins"),
        }
        Begun::Session(session, stored)
    }

    /// Decides about the application's change to the session `visit`, and stores it.
    pub(crate) async fn finish(
        self: Arc<Self>,
        visit: wit::Visit,
        stored: Option<Arc<Stored>>,
        change: Arc<wit::Change>,
    ) -> Answer {
        let id = visit.id.clone();
        let mut unavailable = None;
        let answer = self.carry_out(visit, stored, change, &mut unavailable).await;
        let outcome = match &answer {
            Ok(outcome) => outcome,
            Err(failure) => {
                self.report(failure);
                return answer;
            }
        };
        self.counters.finished(outcome.event);
        self.log(&id, outcome);
        if outcome.event == wit::Event::Created
            && outcome.set_cookie.is_none()
            && *self.options().get("cookie.secure") == true
            && !self.is_insecure_told.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                "a session began over plain HTTP, and its cookie was not sent, since it is Secure \
                 (cookie.secure = true): every request of the visitor begins a new session. Serve \
                 TLS, let a trusted proxy send X-Forwarded-Proto, or set cookie.secure to \
                 \"auto\". This is logged once"
            );
        }
        if let Some(why) = unavailable {
            tracing::error!("a request succeeded although the store failed: {why}");
        }
        answer
    }

    /// Loads a session, once for all requests that wait for it. A request that arrives during a
    /// load waits for the next one, because a change may have been stored since the load began. A
    /// thousand requests for one session thus cost the store few operations and do not delay other
    /// sessions. The load continues if the request that began it is dropped; otherwise all waiting
    /// requests would start over.
    async fn load(&self, id: &str) -> Loaded {
        let unreadable = {
            let mut unreadable = self.unreadable();
            if unreadable.is_empty() { None } else { unreadable.get(id).copied() }
        };
        if unreadable.is_some_and(|since| since.elapsed() < UNREADABLE_FOR) {
            // The component reports it as damaged.
            let unreadable = Stored { data: String::new(), expires: None, touched: None };
            return Ok(Some(Arc::new(unreadable)));
        }
        let at_once = self.store.is_immediate().then(|| at_once(self.store.load(id))).flatten();
        match at_once {
            Some(loaded) => loaded.map(|it| it.map(Arc::new)),
            None => Box::pin(self.load_in_turn(id)).await,
        }
    }

    /// Loads a session once for all requests that wait for it.
    async fn load_in_turn(&self, id: &str) -> Loaded {
        let mut turn = loop {
            match self.loads.enter(id, ()) {
                Entered::Turn(turn, ()) => break turn,
                Entered::Waiting(answer, _) => match answer.await {
                    Ok(Word::Turn(turn, ())) => break turn,
                    // The request that was to load it has gone.
                    Ok(Word::Alone(())) | Err(_) => {}
                    Ok(Word::Answer(loaded)) => return loaded,
                },
                Entered::Full => return self.store.load(id).await.map(|it| it.map(Arc::new)),
            }
        };
        let mut along = turn.take(usize::MAX, |()| true);
        let (store, id) = (self.store.clone(), id.to_owned());
        let mut loading = Box::pin(async move {
            let loaded = store.load(&id).await.map(|it| it.map(Arc::new));
            if loaded.is_err() {
                // Those who came meanwhile would wait for the deadline a second time.
                along.extend(turn.take(usize::MAX, |()| true));
            }
            // The next load of a crowd begins after the last answer.
            let crowd = (loaded.is_ok() && along.len() > CROWD).then_some(turn);
            tell(along.into_iter().map(|it| (it.word, loaded.clone())).collect(), crowd);
            loaded
        });
        // Without a task, if the store replies at once.
        let first = poll_fn(|context| Poll::Ready(loading.as_mut().poll(context))).await;
        match first {
            Poll::Ready(loaded) => loaded,
            Poll::Pending => {
                tokio::spawn(loading).await.unwrap_or_else(|error| Err(format!("load: {error}")))
            }
        }
    }

    /// Lets the component decide about a change, and performs its plan. What is rare is in boxes: the
    /// future is as large as the largest part of it, and is allocated for each request.
    async fn carry_out(
        &self,
        visit: wit::Visit,
        stored: Option<Arc<Stored>>,
        change: Arc<wit::Change>,
        unavailable: &mut Option<String>,
    ) -> Answer {
        let plan = self.engine.finish(visit, stored.clone(), change.clone()).await?;
        let seen = stored.clone();
        let mut job = Job { stored, change, plan, at: 0, seen, is_decided: true };
        let mut turn = None;
        let mut conflicts = 0;
        loop {
            let Some(write) = job.next() else { return Ok(job.plan.outcome) };
            turn = turn.filter(|turn: &Turn| turn.is_of(&write.id));
            // A store that replies at once is seldom in the middle of another change.
            let may_try = conflicts == 0 && self.store.is_immediate();
            if turn.is_none() && write.if_unchanged && !may_try {
                match Box::pin(self.turn(job)).await {
                    Ok((its, same)) => (turn, job) = (its, same),
                    Err(answer) => return answer,
                }
            }
            if let Some(turn) = turn.as_mut().filter(|_| job.is_save()) {
                match Box::pin(self.save(turn, job)).await {
                    Ok(answer) => return answer,
                    Err(next) => job = next,
                }
                continue;
            }
            let turn = turn.as_mut().filter(|_| job.is_conditional());
            let left = turn.and_then(|turn| turn.left.take());
            let met = match left {
                // Another request has changed it: no need to ask the store.
                Some(left) => Err(wit::Obstacle::Conflict((*left).clone())),
                None => {
                    let operation = job.take_operation();
                    self.perform(&job, operation).await
                }
            };
            let obstacle = match met {
                Ok(()) => {
                    job.at += 1;
                    continue;
                }
                Err(wit::Obstacle::Conflict(current)) if job.is_conditional() => {
                    conflicts += 1;
                    Box::pin(self.make_way(conflicts, &job, current)).await
                }
                Err(obstacle) => obstacle,
            };
            if let wit::Obstacle::Unavailable(why) = &obstacle {
                *unavailable = Some(why.clone());
            }
            job = Box::pin(self.resume(job, obstacle)).await?;
        }
    }

    /// Performs the next write of a job; `operation` was taken out of it.
    fn perform<'a>(
        &'a self,
        job: &'a Job,
        operation: wit::Operation,
    ) -> impl Future<Output = Result<(), wit::Obstacle>> + Send + 'a {
        let (id, is_conditional) = job.next().map_or(("", false), |it| (&it.id, it.if_unchanged));
        let seen = job.seen.as_ref().filter(|_| is_conditional);
        self.store.perform(id, operation, seen.map(|it| &*it.data))
    }

    /// Decides again after an obstacle.
    async fn resume(&self, job: Job, obstacle: wit::Obstacle) -> Result<Job, wit::Failure> {
        let Job { stored, change, plan, at, seen, .. } = job;
        let seen = match &obstacle {
            wit::Obstacle::Conflict(current) => Some(Arc::new(current.clone())),
            _ => seen,
        };
        let resumed = self.engine.resume(plan.visit, stored.clone(), change.clone(), at, obstacle);
        Ok(Job { plan: resumed.await?, stored, change, at: 0, seen, is_decided: true })
    }

    /// Waits until no other request of this process is changing the session. Another request may do
    /// the job meanwhile: either entirely, in which case its answer is returned, or as far as it
    /// concerns this session.
    async fn turn(&self, job: Job) -> Result<(Option<Turn>, Job), Answer> {
        let id = job.next().map_or(String::new(), |write| write.id.clone());
        let (mut answer, ticket) = match self.turns.enter(&id, job) {
            Entered::Turn(turn, job) => return Ok((Some(turn), job)),
            Entered::Waiting(answer, ticket) => (answer, ticket),
            Entered::Full => return Err(Err(contention())),
        };
        loop {
            match timeout(PATIENCE, &mut answer).await {
                Ok(Ok(Word::Turn(turn, job))) => return Ok((Some(turn), job)),
                Ok(Ok(Word::Alone(job))) => return Ok((None, job)),
                Ok(Ok(Word::Answer(answer))) => return Err(answer),
                Ok(Err(_)) => {
                    return Err(Err(unavailable(
                        "another request was to store this change as well, and did not finish"
                            .to_owned(),
                    )));
                }
                Err(_) if self.turns.leave(&id, &ticket) => return Err(Err(contention())),
                // Another request is already storing the change, so reporting a failure now could
                // be wrong.
                Err(_) => {}
            }
        }
    }

    /// Stores a change together with the changes of waiting requests, each merged onto the previous
    /// one. After each conflict with another process, fewer are stored at once, which takes less
    /// time and therefore succeeds more easily. The error is the remaining job if the session no
    /// longer exists.
    async fn save(&self, turn: &mut Turn, mut job: Job) -> Result<Answer, Job> {
        let mut most = TAKEN_ALONG;
        let mut conflicts = 0;
        if turn.left.is_some() || !job.is_decided {
            let current = turn.left.clone().or_else(|| job.stored.clone());
            job = match self.onto(current, job).await {
                Ok(job) => job,
                Err(answer) => return Ok(answer),
            };
        }
        loop {
            let Some(mut content) = job.take_content() else { return Ok(Err(undecided())) };
            let mut along = Vec::new();
            for Waiting { job, word, ticket } in turn.take(most, Job::is_save) {
                // Lets requests of other sessions proceed in between.
                yield_now().await;
                match self.onto(Some(stored(&content)), job).await {
                    Ok(mut job) => {
                        content = job.take_content().unwrap_or(content);
                        // The session that it was decided for was never stored.
                        job.is_decided = false;
                        along.push(Waiting { job, word, ticket });
                    }
                    // This change cannot be stored; it is left out.
                    Err(answer) => Waiting::tell(word, answer),
                }
            }
            let left = stored(&content);
            turn.left = None;
            let obstacle = match self.perform(&job, wit::Operation::Replace(content)).await {
                Ok(()) => {
                    turn.left = Some(left);
                    let told = along.into_iter().map(|it| (it.word, Ok(it.job.plan.outcome)));
                    tell(told.collect(), None::<()>);
                    return Ok(Ok(job.plan.outcome));
                }
                Err(obstacle) => obstacle,
            };
            let obstacle = match obstacle {
                wit::Obstacle::Conflict(current) => {
                    turn.put_back(along);
                    most /= 2;
                    conflicts += 1;
                    self.make_way(conflicts, &job, current).await
                }
                // The store may refuse only one of them: store each separately.
                wit::Obstacle::Refused(_) if !along.is_empty() => {
                    turn.put_back(along);
                    most = 0;
                    match job.seen.as_deref() {
                        Some(seen) => wit::Obstacle::Conflict(seen.clone()),
                        None => obstacle,
                    }
                }
                obstacle => {
                    for Waiting { job, word, .. } in along {
                        match self.resume(job, obstacle.clone()).await {
                            // The receiver is gone: its request has timed out.
                            Ok(next) => drop(word.send(Word::Alone(next))),
                            Err(failure) => Waiting::tell(word, Err(failure)),
                        }
                    }
                    obstacle
                }
            };
            job = match self.resume(job, obstacle).await {
                Ok(job) if job.is_save() && job.next().is_some_and(|it| turn.is_of(&it.id)) => job,
                Ok(job) => return Err(job),
                Err(failure) => return Ok(Err(failure)),
            };
        }
    }

    /// Decides the same change again for the session `current`.
    async fn onto(&self, current: Option<Arc<Stored>>, job: Job) -> Result<Job, Answer> {
        let Some(current) = current else { return Err(Err(undecided())) };
        let obstacle = wit::Obstacle::Conflict((*current).clone());
        let job = self.resume(job, obstacle).await.map_err(Err)?;
        if job.is_save() { Ok(job) } else { Err(Err(undecided())) }
    }

    /// Handles a conflict, which only another process can have caused. From the second conflict on,
    /// it pauses for a random time, so that processes do not retry simultaneously, and then loads
    /// the session again.
    async fn make_way(&self, conflicts: u32, job: &Job, current: Stored) -> wit::Obstacle {
        self.counters.conflict();
        let Some(write) = job.next().filter(|_| conflicts >= 2) else {
            return wit::Obstacle::Conflict(current);
        };
        let longest = PAUSE.saturating_mul(1 << (conflicts - 2).min(16)).min(LONGEST_PAUSE);
        let share: f64 = rand::rng().random();
        sleep(longest.mul_f64(share)).await;
        match self.store.load(&write.id).await {
            Ok(Some(current)) => wit::Obstacle::Conflict(current),
            Ok(None) => wit::Obstacle::Missing,
            Err(why) => wit::Obstacle::Unavailable(why),
        }
    }

    /// Logs the outcome. The beginning and the end of a session help to detect attacks.
    fn log(&self, id: &str, outcome: &wit::Outcome) {
        let event = event_name(outcome.event);
        let session = || self.hasher.name(outcome.new_id.as_deref().unwrap_or(id));
        match outcome.event {
            wit::Event::None => {}
            wit::Event::Moved => {
                let old = self.hasher.name(id);
                tracing::info!(event, session = session(), old, "a session has a new identifier");
            }
            wit::Event::Destroyed => tracing::info!(event, session = session(), "a session ended"),
            _ if tracing::enabled!(tracing::Level::DEBUG) => {
                tracing::debug!(event, session = session(), "a session was used");
            }
            _ => {}
        }
    }

    /// Returns the hasher that names sessions in logs.
    pub(crate) fn hasher(&self) -> &SessionHasher {
        &self.hasher
    }

    fn unreadable(&self) -> MutexGuard<'_, LruCache<String, Instant>> {
        self.unreadable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many sessions were created.
    pub(crate) fn created(&self) -> u64 {
        self.counters.created()
    }

    pub(crate) fn store(&self) -> &TimedStore {
        &self.store
    }

    pub(crate) fn options(&self) -> &InForce {
        self.engine.in_force()
    }

    fn report(&self, failure: &wit::Failure) {
        self.counters.failed(failure.kind);
        let wit::Failure { reason, .. } = failure;
        match failure.kind {
            wit::FailureKind::Unavailable => tracing::error!("sessions are unavailable: {reason}"),
            wit::FailureKind::InvalidChange => {
                tracing::error!("the application's change to the session was refused: {reason}");
            }
            wit::FailureKind::TooLarge | wit::FailureKind::Contention => {
                tracing::error!("a change was not stored: {reason}");
            }
            wit::FailureKind::Misuse => tracing::error!("{reason}"),
        }
    }
}

/// Polls a future once, and returns its output if that completes it.
fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// Notifies waiting requests one by one: all at once would delay every other request. Those of a
/// `crowd` are notified [`PACE`] apart; it is held until the last one.
fn tell<Job, Answer>(
    all: Vec<(oneshot::Sender<Word<Job, Answer>>, Answer)>,
    crowd: Option<impl Send + 'static>,
) where
    Job: Send + 'static,
    Answer: Send + 'static,
{
    if all.is_empty() {
        return;
    }
    tokio::spawn(async move {
        let mut pace = crowd.is_some().then(|| interval(PACE));
        for (word, answer) in all {
            match &mut pace {
                Some(pace) => drop(pace.tick().await),
                None => yield_now().await,
            }
            Waiting::tell(word, answer);
        }
        drop(crowd);
    });
}

/// The session as it will be once stored.
fn stored(content: &Content) -> Arc<Stored> {
    let Content { data, expires } = content;
    Arc::new(Stored { data: data.clone(), expires: Some(*expires), touched: None })
}

/// The failure if the component broke its contract.
fn undecided() -> wit::Failure {
    trapped(&"it returned an unexpected plan")
}

fn contention() -> wit::Failure {
    failed(wit::FailureKind::Contention, "too many requests wait for the session".to_owned())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::{Request, Response};
    use tower::{Layer as _, Service as _, service_fn};

    use super::*;
    use crate::store::MemoryStore;
    use crate::{Component, SessionLayer};

    #[test]
    fn the_futures_of_a_request_are_small() {
        let mut options = Options::default();
        options.secret("a secret for tests, long enough to sign with");
        let component = Component::bundled().unwrap();
        let layer =
            SessionLayer::new(component.clone(), options.clone(), MemoryStore::default()).unwrap();
        let inner = service_fn(async |_| Ok::<_, Infallible>(Response::new(String::new())));
        let call = layer.layer(inner).call(Request::new(()));
        let (store, deadline) = (Arc::new(MemoryStore::default()), Duration::from_secs(1));
        let driver = Driver::new(component.into(), options, store, deadline).map(Arc::new).unwrap();
        let request = wit::Request {
            cookies: Vec::new(),
            path: String::new(),
            tls: false,
            secure: false,
            forwarded_proto: None,
        };
        let state = wit::State { bits: 0, text: None };
        let visit = wit::Visit { id: String::new(), state };
        let change = wit::Change {
            action: wit::Action::Keep,
            data: wit::DataChange::Nothing,
            cookie: Vec::new(),
        };
        let sizes = [
            size_of_val(&*call),
            size_of_val(&driver.begin(request, false)),
            size_of_val(&driver.clone().finish(visit, None, Arc::new(change))),
        ];
        // glibc's and other allocators' fast lists end at about a kibibyte.
        assert!(sizes.iter().all(|size| *size <= 1024), "{sizes:?}");
    }
}
