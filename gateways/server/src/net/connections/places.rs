//! Places: limits on open connections and on concurrent requests, in total and per client.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::MAX_HTTP2_STREAMS;

/// How long a request waits for a place before it is refused.
const PATIENCE: Duration = Duration::from_secs(2);

/// How many refused requests are held back for that time. A client that is refused at once retries
/// at once, which costs other clients more.
const HELD: usize = 4096;

/// How many requests of a connection a client may cancel, if these are the majority.
const MAX_GIVEN_UP: u64 = MAX_HTTP2_STREAMS as u64;

/// How long an evicted connection may take to close before another one is evicted.
const LEAVING: Duration = Duration::from_millis(50);

/// The limits on open connections and on concurrent requests.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Bounds {
    pub(crate) connections: usize,
    pub(crate) requests: usize,
    /// The maximum number of concurrent requests per client address.
    pub(crate) per_client: usize,
    /// Networks whose addresses stand for many clients.
    pub(crate) exempt: Vec<IpNet>,
}

impl Bounds {
    /// Returns how many requests may wait for a place.
    fn queue(&self) -> usize {
        (self.requests / 4).max(16)
    }
}

/// The places of one listener.
pub(super) struct Places {
    bounds: Bounds,
    connections: Arc<Semaphore>,
    requests: Arc<Semaphore>,
    /// Limits waiting requests, whose headers occupy memory.
    queue: Arc<Semaphore>,
    held: Semaphore,
    /// The origin of stored times.
    start: Instant,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    next: u64,
    connections: HashMap<u64, Weak<Connection>>,
    clients: HashMap<IpAddr, Arc<Client>>,
}

/// The places of one client address.
struct Client {
    connections: AtomicUsize,
    requests: Arc<Semaphore>,
    /// Prevents a single client from taking the whole queue.
    queue: Arc<Semaphore>,
}

impl Client {
    fn new(bounds: &Bounds) -> Self {
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        Self {
            connections: AtomicUsize::new(0),
            requests: semaphore(bounds.per_client),
            queue: semaphore(bounds.queue() / 4),
        }
    }
}

/// An open connection. It holds its place until its last request ends.
pub(crate) struct Connection {
    pub(crate) address: IpAddr,
    pub(crate) tls: bool,
    /// How many complete request headers have arrived.
    pub(super) requests: AtomicU64,
    /// How many requests the client has canceled before their responses began.
    given_up: AtomicU64,
    at_work: AtomicUsize,
    /// When the last request ended, in milliseconds since `Places::start`.
    quiet_since: AtomicU64,
    is_leaving: AtomicBool,
    leave: Notify,
    /// None: it stands for many clients.
    client: Option<Arc<Client>>,
    number: u64,
    places: Arc<Places>,
    _place: OwnedSemaphorePermit,
}

/// The place of a request.
pub(super) struct Place {
    pub(super) connection: Arc<Connection>,
    _of_client: Option<OwnedSemaphorePermit>,
    _request: OwnedSemaphorePermit,
    // Dropped last: a quiet connection has no places left.
    _at_work: AtWork,
}

/// Why there is no place for a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Full {
    Client,
    All,
}

impl Full {
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Client => "client-busy",
            Self::All => "busy",
        }
    }

    pub(super) fn whose(self) -> &'static str {
        match self {
            Self::Client => "limits.per_client is reached for its client",
            Self::All => "limits.requests is reached",
        }
    }
}

impl Places {
    pub(super) fn new(bounds: Bounds) -> Arc<Self> {
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        Arc::new(Self {
            connections: semaphore(bounds.connections),
            requests: semaphore(bounds.requests),
            queue: semaphore(bounds.queue()),
            held: Semaphore::new(HELD),
            start: Instant::now(),
            open: Mutex::default(),
            bounds,
        })
    }

    /// Returns the number of open connections.
    pub(super) fn open(&self) -> usize {
        self.bounds.connections - self.connections.available_permits()
    }

    /// Returns whether all places for connections are taken, or, if they were, whether less than a
    /// quarter has become free.
    pub(super) fn are_crowded(&self, were_crowded: bool) -> bool {
        let free = self.connections.available_permits();
        free == 0 || were_crowded && free < self.bounds.connections / 4
    }

    pub(super) async fn all_closed(&self) {
        let all = u32::try_from(self.bounds.connections).unwrap_or(u32::MAX);
        // The semaphore is never closed.
        let _ = self.connections.acquire_many(all).await;
    }

    /// Admits a new connection as soon as there is a place for it.
    pub(super) async fn admit(self: &Arc<Self>, address: IpAddr, tls: bool) -> Arc<Connection> {
        let address = address.to_canonical();
        if let Ok(place) = self.connections.clone().try_acquire_owned() {
            return self.enter(address, tls, place);
        }
        metrics::counter!("edge_session_connections_full_total").increment(1);
        match self.make_room() {
            0 => tracing::warn!("limits.connections is reached: new connections wait"),
            _ => tracing::warn!("limits.connections is reached: idle ones are closed"),
        }
        loop {
            // The semaphore is never closed.
            let place = self.connections.clone().acquire_owned();
            if let Ok(Ok(place)) = timeout(LEAVING, place).await {
                return self.enter(address, tls, place);
            }
            self.make_room();
        }
    }

    fn enter(
        self: &Arc<Self>,
        address: IpAddr,
        tls: bool,
        place: OwnedSemaphorePermit,
    ) -> Arc<Connection> {
        let is_exempt = self.bounds.exempt.iter().any(|network| network.contains(&address));
        let mut open = self.lock();
        let number = open.next;
        open.next += 1;
        let client = (!is_exempt).then(|| {
            let new = || Arc::new(Client::new(&self.bounds));
            open.clients.entry(client_of(address)).or_insert_with(new).clone()
        });
        if let Some(client) = &client {
            client.connections.fetch_add(1, Ordering::Relaxed);
        }
        let connection = Arc::new(Connection {
            address,
            tls,
            requests: AtomicU64::new(0),
            given_up: AtomicU64::new(0),
            at_work: AtomicUsize::new(0),
            quiet_since: AtomicU64::new(self.now()),
            is_leaving: AtomicBool::new(false),
            leave: Notify::new(),
            client,
            number,
            places: self.clone(),
            _place: place,
        });
        open.connections.insert(number, Arc::downgrade(&connection));
        connection
    }

    /// Evicts idle connections, longest idle first, and returns how many. If a client has more than
    /// its share, only its connections are evicted.
    fn make_room(&self) -> usize {
        // The lock is released first, because dropping a connection locks it again.
        let all: Vec<_> = self.lock().connections.values().filter_map(Weak::upgrade).collect();
        let share = (self.bounds.connections / 8).max(8);
        let connections = |client: &&Arc<Client>| client.connections.load(Ordering::Relaxed);
        let clients = all.iter().filter(|it| it.is_quiet()).filter_map(|it| it.client.as_ref());
        let greedy = clients.max_by_key(connections).filter(|it| connections(it) > share);
        let is_one = |it: &&Arc<Connection>| {
            let is_its = |client| it.client.as_ref().is_some_and(|its| Arc::ptr_eq(its, client));
            it.is_quiet() && greedy.is_none_or(is_its)
        };
        let mut quiet: Vec<_> = all.iter().filter(is_one).collect();
        // Evicts several at once, because scanning all connections costs more than one place is
        // worth.
        let count = quiet.len().min(1 + quiet.len() / 64);
        if count == 0 {
            return 0;
        }
        quiet.select_nth_unstable_by_key(count - 1, |it| it.quiet_since.load(Ordering::Relaxed));
        for connection in &quiet[..count] {
            connection.is_leaving.store(true, Ordering::Relaxed);
            connection.leave.notify_one();
        }
        metrics::counter!("edge_session_connections_let_go_total").increment(count as u64);
        count
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the address that identifies a client: for IPv6 its network, since clients usually have a
/// whole one.
pub(crate) fn client_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)))
        }
    }
}

impl Connection {
    /// Waits briefly for a request's place.
    pub(super) async fn enter(self: Arc<Self>) -> Result<Place, Full> {
        let at_work = AtWork::begin(self.clone());
        let mut turn = Turn::of(&self);
        let of_client = match &self.client {
            Some(client) => Some(turn.take(&client.requests).await.ok_or(Full::Client)?),
            None => None,
        };
        let request = turn.take(&self.places.requests).await.ok_or(Full::All)?;
        Ok(Place {
            connection: self.clone(),
            _of_client: of_client,
            _request: request,
            _at_work: at_work,
        })
    }

    /// Holds a refused request back until [`PATIENCE`] has passed since its arrival.
    pub(super) async fn hold(&self, since: Instant) {
        if let Ok(_held) = self.places.held.try_acquire() {
            sleep_until(since + PATIENCE).await;
        }
    }

    /// Waits until there has been no request for `limit`, counted from `start` at the earliest.
    pub(super) async fn quiet_for(&self, limit: Duration, start: Instant) {
        loop {
            let now = Instant::now();
            let since = match self.at_work.load(Ordering::Relaxed) {
                0 => start.max(self.quiet_since()),
                _ => now,
            };
            if since + limit <= now {
                return;
            }
            sleep_until(since + limit).await;
        }
    }

    /// Waits until the connection is evicted while it has no request, or until the client has
    /// canceled too many requests.
    pub(super) async fn must_leave(&self) {
        loop {
            self.leave.notified().await;
            if self.at_work.load(Ordering::Relaxed) == 0 || self.gives_up_too_much() {
                return;
            }
            self.is_leaving.store(false, Ordering::Relaxed);
        }
    }

    /// Returns a guard for a request whose response has not begun. If dropped before `answered`,
    /// the request counts as canceled: its place is free, but the application may still be working
    /// on it.
    pub(super) fn unanswered(self: Arc<Self>) -> Unanswered {
        Unanswered(Some(self))
    }

    /// Returns whether the client cancels too many requests: opening and resetting streams would
    /// pass any number of requests to an application (CVE-2023-44487). Browsers cancel some when a
    /// user leaves a page.
    fn gives_up_too_much(&self) -> bool {
        let given_up = self.given_up.load(Ordering::Relaxed);
        given_up > MAX_GIVEN_UP && given_up > self.requests.load(Ordering::Relaxed) / 2
    }

    /// Returns whether it stands for many clients, so that it has no limits of its own.
    pub(super) fn is_exempt(&self) -> bool {
        self.client.is_none()
    }

    fn is_quiet(&self) -> bool {
        self.at_work.load(Ordering::Relaxed) == 0 && !self.is_leaving.load(Ordering::Relaxed)
    }

    fn quiet_since(&self) -> Instant {
        self.places.start + Duration::from_millis(self.quiet_since.load(Ordering::Relaxed))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut open = self.places.lock();
        open.connections.remove(&self.number);
        if let Some(client) = &self.client
            && client.connections.fetch_sub(1, Ordering::Relaxed) == 1
        {
            open.clients.remove(&client_of(self.address));
        }
    }
}

/// A request whose response has not begun.
pub(super) struct Unanswered(Option<Arc<Connection>>);

impl Unanswered {
    pub(super) fn answered(mut self) {
        self.0 = None;
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        let Some(connection) = self.0.take() else { return };
        connection.given_up.fetch_add(1, Ordering::Relaxed);
        if connection.gives_up_too_much() {
            connection.leave.notify_one();
        }
    }
}

/// Counts a request while it exists.
struct AtWork(Arc<Connection>);

impl AtWork {
    fn begin(connection: Arc<Connection>) -> Self {
        connection.at_work.fetch_add(1, Ordering::Relaxed);
        Self(connection)
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.quiet_since.store(self.0.places.now(), Ordering::Relaxed);
        self.0.at_work.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request that acquires its places.
struct Turn<'c> {
    connection: &'c Connection,
    waiting: Option<Waiting>,
}

/// A place in the queues, with its deadline.
struct Waiting {
    until: Instant,
    _of_client: Option<OwnedSemaphorePermit>,
    _of_all: OwnedSemaphorePermit,
}

impl<'c> Turn<'c> {
    fn of(connection: &'c Connection) -> Self {
        Self { connection, waiting: None }
    }

    /// Takes a place. Returns none if there is none after the wait, or if too many requests are
    /// waiting.
    async fn take(&mut self, places: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
        if let Ok(place) = places.clone().try_acquire_owned() {
            return Some(place);
        }
        if self.waiting.is_none() {
            self.waiting = Some(self.wait()?);
        }
        let until = self.waiting.as_ref()?.until;
        timeout_at(until, places.clone().acquire_owned()).await.ok()?.ok()
    }

    fn wait(&self) -> Option<Waiting> {
        let place = |queue: &Arc<Semaphore>| queue.clone().try_acquire_owned().ok();
        let _of_client = match &self.connection.client {
            Some(client) => Some(place(&client.queue)?),
            None => None,
        };
        let _of_all = place(&self.connection.places.queue)?;
        Some(Waiting { until: Instant::now() + PATIENCE, _of_client, _of_all })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::sleep;

    const SECOND: Duration = Duration::from_secs(1);

    fn places(connections: usize, requests: usize, per_client: usize) -> Arc<Places> {
        let exempt = vec!["10.0.0.0/8".parse().unwrap()];
        Places::new(Bounds { connections, requests, per_client, exempt })
    }

    async fn admit(places: &Arc<Places>, address: &str) -> Arc<Connection> {
        places.admit(address.parse().unwrap(), false).await
    }

    fn must_leave(connection: &Connection) -> bool {
        connection.is_leaving.load(Ordering::Relaxed)
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_waits_for_a_place_for_a_while_and_is_refused_then() {
        let places = places(10, 1, 10);
        let connection = admit(&places, "192.0.2.1").await;
        let first = connection.clone().enter().await.ok();
        let start = Instant::now();
        let second = connection.clone().enter().await;
        assert_eq!((second.err(), start.elapsed()), (Some(Full::All), PATIENCE));
        let third = tokio::spawn(connection.clone().enter());
        sleep(SECOND).await;
        drop(first);
        assert!(third.await.unwrap().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn no_client_has_the_whole_queue() {
        let places = places(10, 1, 100);
        let connection = admit(&places, "192.0.2.1").await;
        let _first = connection.clone().enter().await.ok();
        let wait = |connection: &Arc<Connection>| tokio::spawn(connection.clone().enter());
        let waiting: Vec<_> = (0..4).map(|_| wait(&connection)).collect();
        tokio::task::yield_now().await;
        let start = Instant::now();
        assert_eq!(connection.clone().enter().await.err(), Some(Full::All));
        let mut others = Vec::new();
        for other in 2..5 {
            let other = admit(&places, &format!("192.0.2.{other}")).await;
            others.extend((0..4).map(|_| wait(&other)));
        }
        tokio::task::yield_now().await;
        let late = admit(&places, "192.0.2.5").await;
        assert_eq!(late.enter().await.err(), Some(Full::All));
        assert_eq!(start.elapsed(), Duration::ZERO);
        for one in waiting.into_iter().chain(others) {
            assert_eq!(one.await.unwrap().err(), Some(Full::All));
        }
        assert_eq!(start.elapsed(), PATIENCE, "the others had their turn");
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_refused_is_told_late_unless_too_many_are() {
        let places = places(10, 1, 1);
        let connection = admit(&places, "192.0.2.1").await;
        let start = Instant::now();
        let held: Vec<_> = (0..HELD)
            .map(|_| {
                let connection = connection.clone();
                tokio::spawn(async move { connection.hold(start).await })
            })
            .collect();
        while places.held.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        connection.hold(start).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        for one in held {
            one.await.unwrap();
        }
        connection.hold(start).await;
        assert_eq!(start.elapsed(), PATIENCE, "that long ago it came");
    }

    #[tokio::test(start_paused = true)]
    async fn one_client_has_no_more_requests_at_work_than_it_may_on_all_its_connections() {
        let places = places(10, 10, 2);
        let mut at_work = Vec::new();
        for _ in 0..2 {
            let connection = admit(&places, "2001:db8::1").await;
            at_work.push(connection.enter().await.unwrap_or_else(|_| panic!("there is a place")));
        }
        let same_network = at_work[0].connection.clone();
        assert_eq!(same_network.enter().await.err(), Some(Full::Client));
        for other in ["2001:db8:0:1::1", "192.0.2.1", "::ffff:192.0.2.2"] {
            let place = admit(&places, other).await.enter().await;
            assert!(place.is_ok(), "{other}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_stands_for_many_clients_has_no_bound_of_its_own() {
        let places = places(10, 10, 1);
        let mut at_work = Vec::new();
        for _ in 0..5 {
            let connection = admit(&places, "::ffff:10.0.0.1").await;
            at_work.push(connection.enter().await.unwrap_or_else(|_| panic!("there is a place")));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_places_are_taken_the_longest_quiet_connection_makes_room() {
        let places = places(3, 10, 10);
        let busy = admit(&places, "192.0.2.1").await;
        let _at_work = busy.clone().enter().await.ok();
        sleep(SECOND).await;
        let [one, other] = [admit(&places, "192.0.2.2").await, admit(&places, "192.0.2.3").await];
        sleep(SECOND).await;
        drop(one.clone().enter().await.ok());
        let next = tokio::spawn({
            let places = places.clone();
            async move { admit(&places, "192.0.2.4").await }
        });
        tokio::time::timeout(SECOND, other.must_leave()).await.expect("it is the one to leave");
        assert!(!must_leave(&busy) && !must_leave(&one));
        drop(other);
        next.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn the_client_with_more_than_its_share_of_connections_makes_room() {
        let places = places(80, 10, 2);
        let [visitor, proxy] =
            [admit(&places, "192.0.2.9").await, admit(&places, "10.0.0.1").await];
        sleep(SECOND).await;
        let mut many = Vec::new();
        for _ in 0..78 {
            many.push(admit(&places, "192.0.2.1").await);
            sleep(SECOND / 100).await;
        }
        let at_work = many[0].clone().enter().await.ok();
        places.make_room();
        let leaving: Vec<_> = (0..78).filter(|at| must_leave(&many[*at])).collect();
        assert_eq!(leaving, [1, 2]);
        assert!(!must_leave(&visitor) && !must_leave(&proxy));
        // A client within its share, or whose connections are all busy, is not affected.
        drop(at_work);
        many.truncate(10);
        places.make_room();
        assert!(must_leave(&proxy) || must_leave(&visitor));
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_connection_comes_in_as_soon_as_one_has_no_request_at_work() {
        let places = places(1, 10, 10);
        let busy = admit(&places, "192.0.2.1").await;
        let at_work = busy.clone().enter().await.ok();
        let next = tokio::spawn({
            let places = places.clone();
            async move { admit(&places, "192.0.2.2").await.address }
        });
        sleep(SECOND).await;
        assert!(!must_leave(&busy));
        drop(at_work);
        tokio::time::timeout(SECOND, busy.must_leave()).await.expect("it is told");
        drop(busy);
        next.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_quiet_from_the_end_of_its_last_request_on() {
        let places = places(1, 10, 10);
        let connection = admit(&places, "192.0.2.1").await;
        let start = Instant::now();
        let request = connection.clone().enter().await.ok();
        let end = async {
            sleep(15 * SECOND).await;
            drop(request);
        };
        tokio::join!(connection.quiet_for(10 * SECOND, start), end);
        assert!((25..=30).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
        let start = Instant::now();
        connection.quiet_for(10 * SECOND, start).await;
        assert_eq!(start.elapsed(), 10 * SECOND);
    }

    #[tokio::test]
    async fn places_are_crowded_from_the_last_one_on_until_a_quarter_is_free() {
        let places = places(8, 10, 10);
        let mut all = Vec::new();
        for _ in 0..8 {
            assert!(!places.are_crowded(false));
            all.push(admit(&places, "10.0.0.1").await);
        }
        assert!(places.are_crowded(false) && places.are_crowded(true));
        all.pop();
        assert!(!places.are_crowded(false) && places.are_crowded(true));
        all.pop();
        assert!(!places.are_crowded(true));
    }

    #[tokio::test]
    async fn what_has_ended_is_not_remembered() {
        let places = places(10, 10, 2);
        drop([admit(&places, "192.0.2.1").await, admit(&places, "10.0.0.1").await]);
        let open = places.lock();
        assert!(open.connections.is_empty() && open.clients.is_empty());
        assert_eq!(places.connections.available_permits(), 10);
    }
}
