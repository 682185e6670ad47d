//! Calls the component, and performs the store operations that it asks for.

use std::future::poll_fn;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use lru::LruCache;
use rand::RngExt as _;
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout};

use crate::Options;
use crate::bindings::exports::edge::session::engine as wit;
use crate::component::Component;
use crate::counters::{Counters, event_name, origin_name};
use crate::error::OptionsError;
use crate::hasher::SessionHasher;
use crate::instance::{Instances, LARGE, Work};
use crate::store::{Content, Store, Stored};
use crate::timed_store::TimedStore;
use crate::turns::{Entered, Turns, Waiting, Word};

/// The longest time that a request waits for its turn while others change the same session.
const PATIENCE: Duration = Duration::from_secs(5);

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
    instances: Instances,
    store: TimedStore,
    counters: Arc<Counters>,
    hasher: SessionHasher,
    turns: Turns<Job, wit::Outcome>,
    loads: Turns<(), Loaded>,
    /// Whether the warning about an unsent cookie was logged.
    is_insecure_told: AtomicBool,
    /// Large sessions that could not be read, and when.
    unreadable: Mutex<LruCache<String, Instant>>,
}

/// The store's answer to a load.
type Loaded = (wit::StoreReply, Option<Stored>);

/// A request's store operation, as the component has decided it.
struct Job {
    work: Work,
    /// None: to be decided again, because the change was to be stored together with others and was
    /// not.
    request: Option<wit::StoreRequest>,
    on_done: Option<wit::Outcome>,
}

type Turn = crate::turns::Turn<Job, wit::Outcome>;

impl Job {
    fn new(pending: wit::Pending, work: Work) -> Self {
        let wit::Pending { request, exchange, on_done } = pending;
        Self { work: Work { exchange, ..work }, request: Some(request), on_done }
    }

    /// Returns whether concurrent changes of the session can make it fail.
    fn is_conditional(&self) -> bool {
        self.is_save() || matches!(self.request, Some(wit::StoreRequest::Delete(true)))
    }

    /// Returns whether it stores a change in place of the known session.
    fn is_save(&self) -> bool {
        let may_store = match &self.request {
            None => true,
            Some(wit::StoreRequest::Replace(replacement)) => replacement.only_known,
            Some(_) => false,
        };
        // A request that follows a moved session only asks for its new place.
        may_store && self.work.exchange.phase == wit::Phase::Saving
    }

    /// Takes the content that a save stores.
    fn content(&mut self) -> Option<Content> {
        match self.request.take() {
            Some(wit::StoreRequest::Replace(replacement)) => Some(replacement.content),
            _ => None,
        }
    }
}

/// The result of beginning a request.
pub(crate) enum Begun {
    /// The application may use this session. `finish` needs what the store returned.
    Session(Box<wit::Session>, wit::Known),
    /// The path has no session.
    None,
    /// The request cannot be answered.
    Failed(wit::Failure),
}

impl Driver {
    pub(crate) fn new(
        component: Component,
        options: Options,
        store: Arc<dyn Store>,
        deadline: Duration,
    ) -> Result<Self, OptionsError> {
        // A configuration without a secret is refused below.
        let hasher = SessionHasher::new(options.secrets.first().map_or(&[], Vec::as_slice));
        let instances = Instances::open(component.0, options)?;
        let counters = Arc::new(Counters::new());
        let store = TimedStore::new(store, deadline, counters.clone());
        let (turns, loads) = (Turns::new(), Turns::new());
        let unreadable = Mutex::new(LruCache::new(UNREADABLE));
        let is_insecure_told = AtomicBool::new(false);
        Ok(Self { instances, store, counters, hasher, turns, loads, is_insecure_told, unreadable })
    }

    /// Begins a request. With `reads_only`, a missing session is not created.
    pub(crate) async fn begin(&self, request: &wit::Request, reads_only: bool) -> Begun {
        let mut known = wit::Known { loaded: None, current: None };
        let mut step = self.instances.begin(request);
        let (mut unavailable, mut large) = (None, None);
        let failure = loop {
            match step {
                Ok(wit::Step::Store(wit::Pending { request, exchange, .. })) => {
                    let reply = match request {
                        wit::StoreRequest::Load => self.load(&exchange.id, &mut known).await,
                        request => self.store.perform(&exchange.id, request, &mut known).await,
                    };
                    if let wit::StoreReply::Unavailable(why) = &reply {
                        unavailable = Some(why.clone());
                    }
                    let is_large = known.loaded.as_ref().is_some_and(|it| it.data.len() > LARGE);
                    if is_large {
                        large = Some(exchange.id.clone());
                    }
                    let work = Work { exchange, known, change: None };
                    (known, step) = match self.instances.resume(work, reply).await {
                        Ok((work, step)) => (work.known, Ok(step)),
                        Err(error) => break trapped(&error),
                    };
                }
                Ok(wit::Step::Ready(session)) => {
                    self.counters.begun(session.exchange.origin);
                    let origin = origin_name(session.exchange.origin);
                    match session.exchange.origin {
                        wit::Origin::Loaded | wit::Origin::Absent => {}
                        wit::Origin::Damaged => {
                            tracing::warn!(
                                origin,
                                "a stored session cannot be read, or is beyond the limits, and is \
                                 left alone"
                            );
                            // The damaged data is not used, and may be large.
                            known.loaded = None;
                            // If another program owns the sessions, they may become readable at any
                            // time.
                            if let Some(id) = large.filter(|_| !reads_only) {
                                self.unreadable().put(id, Instant::now());
                            }
                        }
                        wit::Origin::Detached => {
                            let why = unavailable.unwrap_or_default();
                            tracing::error!("a request goes on without its session: {why}");
                        }
                        _ if reads_only => tracing::debug!(origin, "there is no session"),
                        _ => tracing::info!(origin, "a new session begins"),
                    }
                    return Begun::Session(Box::new(session), known);
                }
                Ok(wit::Step::Done(wit::Outcome { failure: None, .. })) => return Begun::None,
                Ok(wit::Step::Done(wit::Outcome { failure: Some(failure), .. })) => break failure,
                Err(error) => break trapped(&error),
            }
        };
        self.report(&failure);
        Begun::Failed(failure)
    }

    pub(crate) async fn finish(
        &self,
        exchange: wit::Exchange,
        known: wit::Known,
        change: wit::Change,
    ) -> wit::Outcome {
        let id = exchange.id.clone();
        let mut unavailable = None;
        let work = Work { exchange, known, change: Some(change) };
        let outcome = self.carry_out(work, &mut unavailable).await;
        self.counters.finished(&outcome);
        self.log(&id, &outcome);
        if outcome.event == wit::Event::Created
            && outcome.set_cookie.is_none()
            && self.options().cookie.secure == Some(wit::Secure::Always)
            && !self.is_insecure_told.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                "a session began by plain http, and its cookie, which is Secure (cookie.secure = \
                 true), was not sent: the visitor begins a new one each time. Serve TLS, let a trusted \
                 proxy send X-Forwarded-Proto, or set cookie.secure to \"auto\". This is said once"
            );
        }
        match (&outcome.failure, unavailable) {
            (Some(failure), _) => self.report(failure),
            (None, Some(why)) => {
                tracing::error!("a request ended well although the store failed: {why}");
            }
            (None, None) => {}
        }
        outcome
    }

    /// Loads a session, once for all requests that wait for it. A request that arrives during a
    /// load waits for the next one, because a change may have been stored since the load began. A
    /// thousand requests for one session thus cost the store few operations and do not delay other
    /// sessions. The load continues if the request that began it is dropped; otherwise all waiting
    /// requests would start over.
    async fn load(&self, id: &str, known: &mut wit::Known) -> wit::StoreReply {
        let unreadable = self.unreadable().get(id).copied();
        if unreadable.is_some_and(|since| since.elapsed() < UNREADABLE_FOR) {
            // The component reports it as damaged.
            known.loaded = Some(Stored { data: String::new(), expires: None, touched: None });
            return wit::StoreReply::Found;
        }
        let mut turn = loop {
            match self.loads.enter(id, ()) {
                Entered::Turn(turn, ()) => break turn,
                Entered::Waiting(answer, _) => match answer.await {
                    Ok(Word::Turn(turn, ())) => break turn,
                    // The request that was to load it has gone.
                    Ok(Word::Alone(())) | Err(_) => {}
                    Ok(Word::Answer((reply, loaded))) => {
                        known.loaded = loaded;
                        return reply;
                    }
                },
                Entered::Full => {
                    return self.store.perform(id, wit::StoreRequest::Load, known).await;
                }
            }
        };
        let along = turn.take(usize::MAX, |()| true);
        let (store, id) = (self.store.clone(), id.to_owned());
        let mut loading = Box::pin(async move {
            let mut found = wit::Known { loaded: None, current: None };
            let reply = store.perform(&id, wit::StoreRequest::Load, &mut found).await;
            drop(turn);
            let loaded = (reply, found.loaded);
            tell(along.into_iter().map(|waiting| (waiting.word, loaded.clone())).collect());
            loaded
        });
        // A memory store completes at once and needs no task.
        let first = poll_fn(|context| Poll::Ready(loading.as_mut().poll(context))).await;
        let (reply, loaded) = match first {
            Poll::Ready(loaded) => loaded,
            Poll::Pending => tokio::spawn(loading).await.unwrap_or_else(|error| {
                (wit::StoreReply::Unavailable(format!("load: {error}")), None)
            }),
        };
        known.loaded = loaded;
        reply
    }

    /// Lets the component decide about a change, and performs its store operations.
    async fn carry_out(&self, work: Work, unavailable: &mut Option<String>) -> wit::Outcome {
        let mut turn = None;
        let mut conflicts = 0;
        let mut answer = self.instances.finish(work).await;
        loop {
            let mut job = match decided(answer) {
                Ok(job) => job,
                Err(outcome) => return outcome,
            };
            turn = turn.filter(|turn: &Turn| turn.is_of(&job.work.exchange.id));
            if turn.is_none() && job.is_conditional() {
                match self.turn(job).await {
                    Ok((its, same)) => (turn, job) = (its, same),
                    Err(outcome) => return outcome,
                }
            }
            if let Some(turn) = turn.as_mut().filter(|_| job.is_save()) {
                match self.save(turn, job).await {
                    Ok(outcome) => return outcome,
                    Err(next) => job = next,
                }
            }
            let Job { mut work, request: Some(request), on_done } = job else {
                return undecided();
            };
            let is_conditional = matches!(request, wit::StoreRequest::Delete(true));
            let left = turn.as_mut().filter(|_| is_conditional).and_then(|turn| turn.left.take());
            let mut reply = match left {
                // Another request has changed it: no need to ask the store.
                Some(left) => {
                    work.known.current = Some(left);
                    wit::StoreReply::Conflict
                }
                None => self.store.perform(&work.exchange.id, request, &mut work.known).await,
            };
            if matches!(reply, wit::StoreReply::Conflict) {
                conflicts += 1;
                reply = self.make_way(conflicts, &mut work).await;
            }
            if let wit::StoreReply::Unavailable(why) = &reply {
                *unavailable = Some(why.clone());
            }
            answer = match (reply, on_done) {
                (wit::StoreReply::Done, Some(outcome)) => return outcome,
                (reply, _) => self.instances.resume(work, reply).await,
            };
        }
    }

    /// Waits until no other request of this process is changing the session. Another request may do
    /// the job meanwhile: either entirely, in which case its outcome is returned, or as far as it
    /// concerns this session.
    async fn turn(&self, job: Job) -> Result<(Option<Turn>, Job), wit::Outcome> {
        let id = job.work.exchange.id.clone();
        let (mut answer, ticket) = match self.turns.enter(&id, job) {
            Entered::Turn(turn, job) => return Ok((Some(turn), job)),
            Entered::Waiting(answer, ticket) => (answer, ticket),
            Entered::Full => return Err(failed(wit::Failure::Contention)),
        };
        loop {
            match timeout(PATIENCE, &mut answer).await {
                Ok(Ok(Word::Turn(turn, job))) => return Ok((Some(turn), job)),
                Ok(Ok(Word::Alone(job))) => return Ok((None, job)),
                Ok(Ok(Word::Answer(outcome))) => return Err(outcome),
                Ok(Err(_)) => {
                    return Err(failed(wit::Failure::Unavailable(
                        "another request was to store this change, too, and never ended".to_owned(),
                    )));
                }
                Err(_) if self.turns.leave(&id, &ticket) => {
                    return Err(failed(wit::Failure::Contention));
                }
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
    async fn save(&self, turn: &mut Turn, mut job: Job) -> Result<wit::Outcome, Job> {
        let mut most = TAKEN_ALONG;
        let mut conflicts = 0;
        if turn.left.is_some() || job.request.is_none() {
            job = match self.onto(turn.left.clone(), job).await {
                Ok(job) => job,
                Err(outcome) => return Ok(outcome),
            };
        }
        loop {
            let Some(mut content) = job.content() else { return Ok(undecided()) };
            let mut along = Vec::new();
            for Waiting { job, word, ticket } in turn.take(most, Job::is_save) {
                // Lets requests of other sessions proceed in between.
                yield_now().await;
                match self.onto(Some(stored(&content)), job).await {
                    Ok(mut job) => {
                        content = job.content().unwrap_or(content);
                        // The session that it was decided for was never stored.
                        job.work.known.current = None;
                        along.push(Waiting { job, word, ticket });
                    }
                    // This change cannot be stored; it is left out.
                    Err(outcome) => Waiting::tell(word, outcome),
                }
            }
            let left = stored(&content);
            let replacement = wit::Replacement { content, only_known: true };
            let request = wit::StoreRequest::Replace(replacement);
            let Job { mut work, on_done, .. } = job;
            turn.left = None;
            let mut reply = self.store.perform(&work.exchange.id, request, &mut work.known).await;
            match &reply {
                wit::StoreReply::Done => {
                    turn.left = Some(left);
                    let answer = |job: Job| job.on_done.unwrap_or_else(undecided);
                    tell(along.into_iter().map(|it| (it.word, answer(it.job))).collect());
                    return Ok(on_done.unwrap_or_else(undecided));
                }
                wit::StoreReply::Conflict => {
                    turn.put_back(along);
                    most /= 2;
                    conflicts += 1;
                    reply = self.make_way(conflicts, &mut work).await;
                }
                // The store may refuse only one of them: store each separately.
                wit::StoreReply::Refused(_) if !along.is_empty() => {
                    turn.put_back(along);
                    most = 0;
                    reply = wit::StoreReply::Conflict;
                }
                reply => {
                    for Waiting { job, word, .. } in along {
                        match decided(self.instances.resume(job.work, reply.clone()).await) {
                            // The receiver is gone: its request has timed out.
                            Ok(next) => drop(word.send(Word::Alone(next))),
                            Err(outcome) => Waiting::tell(word, outcome),
                        }
                    }
                }
            }
            job = match decided(self.instances.resume(work, reply).await) {
                Ok(job) if job.is_save() && turn.is_of(&job.work.exchange.id) => job,
                Ok(job) => return Err(job),
                Err(outcome) => return Ok(outcome),
            };
        }
    }

    /// Decides the same change again for the session `current`; none: the session as loaded.
    async fn onto(&self, current: Option<Stored>, job: Job) -> Result<Job, wit::Outcome> {
        let mut work = job.work;
        work.known.current = current;
        let job = decided(self.instances.resume(work, wit::StoreReply::Conflict).await)?;
        if job.is_save() { Ok(job) } else { Err(undecided()) }
    }

    /// Handles a conflict, which only another process can have caused. From the second conflict on,
    /// it pauses for a random time, so that processes do not retry simultaneously, and then loads
    /// the session again.
    async fn make_way(&self, conflicts: u32, work: &mut Work) -> wit::StoreReply {
        if conflicts < 2 {
            return wit::StoreReply::Conflict;
        }
        let longest = PAUSE.saturating_mul(1 << (conflicts - 2).min(16)).min(LONGEST_PAUSE);
        let share: f64 = rand::rng().random();
        sleep(longest.mul_f64(share)).await;
        let mut found = wit::Known { loaded: None, current: None };
        match self.store.perform(&work.exchange.id, wit::StoreRequest::Load, &mut found).await {
            wit::StoreReply::Found => {
                work.known.current = found.loaded;
                wit::StoreReply::Conflict
            }
            reply => reply,
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

    pub(crate) fn options(&self) -> &Options {
        self.instances.options()
    }

    fn report(&self, failure: &wit::Failure) {
        self.counters.failed(failure);
        match failure {
            wit::Failure::Unavailable(why) => tracing::error!("sessions are unavailable: {why}"),
            wit::Failure::InvalidChange(why) => {
                tracing::error!("the application's change to the session was refused: {why}");
            }
            wit::Failure::TooLarge(bytes) => {
                tracing::error!(bytes, "the session is above max_session_bytes and was not stored");
            }
            wit::Failure::Contention => {
                tracing::error!(
                    "a change was not stored: too many requests changed the session at once, or it \
                     has moved"
                );
            }
        }
    }
}

/// Notifies waiting requests one by one: all at once would delay every other request.
fn tell<Job, Answer>(all: Vec<(oneshot::Sender<Word<Job, Answer>>, Answer)>)
where
    Job: Send + 'static,
    Answer: Send + 'static,
{
    if all.is_empty() {
        return;
    }
    tokio::spawn(async move {
        for (word, answer) in all {
            Waiting::tell(word, answer);
            yield_now().await;
        }
    });
}

/// The session as it will be once stored.
fn stored(content: &Content) -> Stored {
    Stored { data: content.data.clone(), expires: Some(content.expires), touched: None }
}

/// Converts the component's answer to a change: the next store operation, or the final outcome.
fn decided(answer: wasmtime::Result<(Work, wit::Step)>) -> Result<Job, wit::Outcome> {
    match answer {
        Ok((work, wit::Step::Store(pending))) => Ok(Job::new(pending, work)),
        Ok((_, wit::Step::Done(outcome))) => Err(outcome),
        Ok((_, wit::Step::Ready(_))) => Err(undecided()),
        Err(error) => Err(failed(trapped(&error))),
    }
}

/// The outcome if the component broke its contract.
fn undecided() -> wit::Outcome {
    failed(trapped(&"it answered with a step that has no place there"))
}

fn failed(failure: wit::Failure) -> wit::Outcome {
    wit::Outcome {
        event: wit::Event::None,
        new_id: None,
        set_cookie: None,
        no_store: false,
        conflicts: 0,
        failure: Some(failure),
    }
}

fn trapped(error: &dyn std::fmt::Display) -> wit::Failure {
    wit::Failure::Unavailable(format!("the component failed: {error}"))
}
