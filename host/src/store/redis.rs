//! `redis://…` — sessions in Redis or Valkey, in the keys and values of connect-redis, so that a
//! Node application shares them.
//!
//! A key is the prefix and the identifier, its value is the session's JSON text. The server expires
//! it: lifetimes are whole seconds, rounded up.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use redis::aio::{
    ConnectionLike, ConnectionManager, ConnectionManagerConfig, MultiplexedConnection,
};
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClient, SentinelNodeConnectionInfo, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, FromRedisValue, IntoConnectionInfo as _,
    Pipeline, ProtocolVersion, PushInfo, PushKind, RedisError, RedisFuture, RedisResult, Script,
    TlsMode, Value, cmd,
};
use tokio::sync::{Mutex, mpsc};
use tokio::time::timeout;

use super::{Browse, Changed, Content, Created, Entry, Page, Store, StoreError, Stored, digest};

/// How many keys the server visits for one reply to `SCAN`.
const KEYS_PER_SCAN: usize = 500;

/// After this time without an event, the server is asked whether it is still there.
const SILENCE: Duration = Duration::from_secs(10);

/// What `PTTL` returns for a key that does not exist, and for one without an expiry.
const MISSING: i64 = -2;
const PERMANENT: i64 = -1;

/// Runs a command on a key if its value is the expected one, and returns the value otherwise.
/// `ARGV`: expected, the most bytes to return, the command, what follows the key in it.
const IF_UNCHANGED: &str = "
local found = redis.call('GET', KEYS[1])
if not found then return false end
if found ~= ARGV[1] then
  return { redis.call('PTTL', KEYS[1]), string.sub(found, 1, ARGV[2]) }
end
redis.call(ARGV[3], KEYS[1], unpack(ARGV, 4))
return { 0, false }";

/// connect-redis's options.
#[derive(Clone, Debug)]
pub struct RedisOptions {
    /// What keys begin with. Default: `sess:`.
    pub prefix: String,
    /// Keep sessions until they are destroyed. Default: false.
    pub disable_ttl: bool,
    /// Do not prolong sessions that are only read. Default: false.
    pub disable_touch: bool,
    /// How many replicas must have a change before it counts as made (`WAIT`): otherwise, a
    /// fail-over may lose it. Touches do not wait. Default: 0.
    pub wait_replicas: usize,
    /// Of a larger session, only so much is fetched that it counts as damaged: set it together with
    /// the option `max_session_bytes`. Default: 1 MiB.
    pub max_session_bytes: u32,
    /// How long to wait for a connection and for a reply. Default: 2 s.
    pub timeout: Duration,
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self {
            prefix: "sess:".to_owned(),
            disable_ttl: false,
            disable_touch: false,
            wait_replicas: 0,
            max_session_bytes: 1 << 20,
            timeout: Duration::from_secs(2),
        }
    }
}

/// A connection that its clones share, and that connects again when it is lost.
#[derive(Clone)]
enum Connection {
    One(ConnectionManager),
    Cluster(ClusterConnection),
    Sentinels(Arc<Mutex<Master>>),
}

impl Connection {
    async fn open(uri: &str, options: &RedisOptions) -> Result<Self, StoreError> {
        let cluster = servers(uri);
        if !cluster.is_empty() {
            let client = ClusterClientBuilder::new(cluster)
                .connection_timeout(options.timeout)
                .response_timeout(options.timeout)
                .retries(2)
                .build()
                .map_err(|_| invalid_address())?;
            let connection = client.get_async_connection().await;
            return connection.map(Self::Cluster).map_err(store_error);
        }
        if let Some(master) = Master::of(uri, options.timeout)? {
            return Ok(Self::Sentinels(Arc::new(Mutex::new(master))));
        }
        let client = Client::open(uri).map_err(|_| invalid_address())?;
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(options.timeout))
            .set_response_timeout(Some(options.timeout))
            // Requests do not wait for several attempts: the next one makes another.
            .set_number_of_retries(1);
        let connection = ConnectionManager::new_with_config(client, config);
        connection.await.map(Self::One).map_err(|error| match error.code() {
            // The only other command of a connection's beginning, SELECT.
            Some("ERR") => StoreError::new("Redis does not have the database in the address"),
            _ => store_error(error),
        })
    }
}

impl Connection {
    /// Asks the sentinels for the master again, if there are any.
    async fn forget(&self) {
        if let Self::Sentinels(it) = self {
            it.lock().await.connection = None;
        }
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::One(it) => it.req_packed_command(command),
            Self::Cluster(it) => it.req_packed_command(command),
            Self::Sentinels(it) => Box::pin(async move {
                let (mut connection, number) = Master::connection(it.clone()).await?;
                let result = connection.req_packed_command(command).await;
                if result.as_ref().map_or(true, is_no_master) {
                    it.lock().await.forget(number);
                }
                result
            }),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        commands: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::One(it) => it.req_packed_commands(commands, offset, count),
            Self::Cluster(it) => it.req_packed_commands(commands, offset, count),
            Self::Sentinels(it) => Box::pin(async move {
                let (mut connection, number) = Master::connection(it.clone()).await?;
                let result = connection.req_packed_commands(commands, offset, count).await;
                if result.as_ref().map_or(true, |replies| replies.iter().any(is_no_master)) {
                    it.lock().await.forget(number);
                }
                result
            }),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::One(it) => it.get_db(),
            Self::Cluster(it) => it.get_db(),
            Self::Sentinels(_) => 0,
        }
    }
}

/// The connection to the master that sentinels name.
struct Master {
    sentinels: SentinelClient,
    config: AsyncConnectionConfig,
    connection: Option<MultiplexedConnection>,
    /// Of the connection. What another request has opened meanwhile is not closed.
    number: u64,
}

impl Master {
    /// Reads an address; none if it is not that of sentinels.
    fn of(uri: &str, timeout: Duration) -> Result<Option<Self>, StoreError> {
        let Some((scheme, rest)) = uri.split_once("+sentinel://") else { return Ok(None) };
        let (servers, path) = rest.split_once('/').ok_or_else(invalid_sentinels)?;
        let (name, database) = path.split_once('/').unwrap_or((path, ""));
        let (user, hosts) = user_and_hosts(servers);
        if name.is_empty() || !matches!(scheme, "redis" | "rediss" | "valkey" | "valkeys") {
            return Err(invalid_sentinels());
        }
        let sentinels: RedisResult<Vec<_>> = hosts
            .split(',')
            .map(|host| format!("{scheme}://{host}").into_connection_info())
            .collect();
        let sentinels = sentinels.map_err(|_| invalid_sentinels())?;
        // The user, password and database are those of the master and its replicas.
        let server = format!("{scheme}://{user}host/{database}").into_connection_info();
        let server = server.map_err(|_| invalid_sentinels())?;
        let mut info = SentinelNodeConnectionInfo::default()
            .set_redis_connection_info(server.redis_settings().clone());
        if matches!(scheme, "rediss" | "valkeys") {
            info = info.set_tls_mode(TlsMode::Secure);
        }
        let sentinels =
            SentinelClient::build(sentinels, name, Some(info), SentinelServerType::Master);
        let config = config(timeout);
        let sentinels = sentinels.map_err(|_| invalid_sentinels())?;
        Ok(Some(Self { sentinels, config, connection: None, number: 0 }))
    }

    /// Returns the connection and its number. Asks the sentinels if there is none, to the end: with
    /// one of them down, that may take longer than any caller waits.
    async fn connection(this: Arc<Mutex<Self>>) -> RedisResult<(MultiplexedConnection, u64)> {
        let mut master = this.lock_owned().await;
        if let Some(connection) = &master.connection {
            return Ok((connection.clone(), master.number));
        }
        let opening = tokio::spawn(async move {
            let Self { sentinels, config, .. } = &mut *master;
            let connection = sentinels.get_async_connection_with_config(config).await?;
            master.number += 1;
            Ok((master.connection.insert(connection).clone(), master.number))
        });
        let stopped = |_| RedisError::from((ErrorKind::Io, "the process is ending"));
        opening.await.map_err(stopped)?
    }

    fn forget(&mut self, number: u64) {
        if self.number == number {
            self.connection = None;
        }
    }
}

/// Returns whether a server says that it is not the master, or not yet.
fn is_no_master(reply: &Value) -> bool {
    let Value::ServerError(error) = reply else { return false };
    matches!(error.code(), "READONLY" | "MASTERDOWN" | "LOADING" | "NOREPLICAS")
        // A script's error begins otherwise.
        || error.details().is_some_and(|details| details.contains("READONLY"))
}

/// Returns a client for a connection on which a server tells of keys.
fn listening(uri: &str) -> Option<Client> {
    let info = uri.into_connection_info().ok()?;
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    Client::open(info.set_redis_settings(settings)).ok()
}

/// Splits `USER:PASSWORD@HOST,HOST` after the `@`. The user may be missing.
fn user_and_hosts(servers: &str) -> (&str, &str) {
    servers.split_at(servers.rfind('@').map_or(0, |at| at + 1))
}

/// Returns the settings of a connection that does not connect again by itself.
fn config(timeout: Duration) -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(timeout))
        .set_response_timeout(Some(timeout))
}

/// Returns the addresses of a cluster's servers; none if `uri` is not that of a cluster.
fn servers(uri: &str) -> Vec<String> {
    let Some((scheme, rest)) = uri.split_once("+cluster://") else { return Vec::new() };
    let (user, hosts) = user_and_hosts(rest);
    hosts.split(',').map(|host| format!("{scheme}://{user}{host}")).collect()
}

/// Sessions in Redis. Confirmed writes are as durable as the server's configuration makes them: by
/// default, Redis loses some of them with the server or in a fail-over.
pub struct RedisStore {
    connection: Connection,
    /// For changes, which may wait for replicas: nothing else can be done on it meanwhile.
    changing: Connection,
    options: RedisOptions,
    /// For another connection to the server, on which it tells of keys; none with several servers.
    listening: Option<Client>,
    if_unchanged: Script,
    clock: Arc<dyn Fn() -> SystemTime + Send + Sync>,
}

impl RedisStore {
    /// Connects to the server. Addresses are `redis://USER:PASSWORD@HOST:PORT/DATABASE`,
    /// `rediss://` with TLS, `redis+unix:///PATH`, and the same with `valkey` for `redis`. A cluster
    /// is `redis+cluster://USER:PASSWORD@HOST:PORT,HOST:PORT` (`rediss+cluster://`), with some of its
    /// servers. What sentinels watch is `redis+sentinel://USER:PASSWORD@HOST:PORT,HOST:PORT/NAME`
    /// (`rediss+sentinel://`), with the sentinels, the name of the master, and the user and
    /// password of its servers; after the name, `/DATABASE` may follow. Sentinels have no password.
    pub async fn connect(uri: &str, options: &RedisOptions) -> Result<Self, StoreError> {
        let mut connection = Connection::open(uri, options).await?;
        // Connecting succeeds without the password that the server wants.
        cmd("PING").query_async::<Value>(&mut connection).await.map_err(store_error)?;
        let changing = match options.wait_replicas {
            0 => connection.clone(),
            _ => Connection::open(uri, options).await?,
        };
        let is_one = matches!(connection, Connection::One(_));
        Ok(Self {
            connection,
            changing,
            options: options.clone(),
            listening: if is_one { listening(uri) } else { None },
            if_unchanged: Script::new(IF_UNCHANGED),
            clock: Arc::new(SystemTime::now),
        })
    }

    /// Checks that `uri` is a valid address, without connecting.
    pub fn check_address(uri: &str) -> Result<(), StoreError> {
        if Master::of(uri, Duration::ZERO)?.is_some() {
            return Ok(());
        }
        let cluster = servers(uri);
        let all = if cluster.is_empty() { vec![uri.to_owned()] } else { cluster };
        match all.iter().all(|uri| Client::open(uri.as_str()).is_ok()) {
            true => Ok(()),
            false => Err(invalid_address()),
        }
    }

    /// Takes the time from `clock` instead of the system: for tests.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    fn key(&self, id: &str) -> String {
        format!("{}{id}", self.options.prefix)
    }

    fn now(&self) -> u64 {
        let since = (self.clock)().duration_since(UNIX_EPOCH);
        since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    /// Returns how many seconds a session lives, as connect-redis computes it. 0: it is over.
    fn lifetime(&self, expires: u64) -> u64 {
        expires.saturating_sub(self.now()).div_ceil(1000)
    }

    /// Returns the command that stores a session, and what follows the key in it. A session that is
    /// over is deleted.
    fn set(&self, content: Content) -> Vec<String> {
        let mut command = vec!["SET".to_owned(), content.data];
        match self.lifetime(content.expires) {
            0 => return vec!["DEL".to_owned()],
            _ if self.options.disable_ttl => {}
            seconds => command.extend(["EX".to_owned(), seconds.to_string()]),
        }
        command
    }

    /// The number of bytes by which a session is known to be too large.
    fn most_bytes(&self) -> usize {
        self.options.max_session_bytes as usize + 1
    }

    fn stored(&self, data: &[u8], time_to_live: i64) -> Stored {
        Stored {
            data: String::from_utf8_lossy(data).into_owned(),
            expires: (time_to_live != PERMANENT)
                .then(|| self.now().saturating_add_signed(time_to_live)),
            touched: None,
        }
    }

    async fn run<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, StoreError> {
        command.query_async(&mut self.connection.clone()).await.map_err(store_error)
    }

    /// Runs a command that changes a session, and waits for the replicas.
    async fn change<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, StoreError> {
        let wanted = self.options.wait_replicas;
        if wanted == 0 {
            return self.run(command).await;
        }
        let mut commands = Pipeline::with_capacity(2);
        commands.add_command(command.clone());
        commands.cmd("WAIT").arg(wanted).arg(self.options.timeout.as_millis() as u64 / 2);
        let (result, have): (T, usize) =
            commands.query_async(&mut self.changing.clone()).await.map_err(store_error)?;
        match have >= wanted {
            true => Ok(result),
            false => {
                // It may have been replaced, without knowing it.
                self.connection.forget().await;
                self.changing.forget().await;
                Err(StoreError::new(format!(
                    "only {have} of {wanted} replicas have confirmed a change, which a fail-over may \
                 lose"
                )))
            }
        }
    }

    /// Runs a command that changes nothing, and once more if the connection was closed: the server
    /// may have been restarted since the last request.
    async fn read<T: FromRedisValue>(&self, commands: &Pipeline) -> Result<T, StoreError> {
        let mut connection = self.connection.clone();
        match commands.query_async(&mut connection).await {
            Err(error) if error.is_connection_dropped() => {
                commands.query_async(&mut connection).await
            }
            result => result,
        }
        .map_err(store_error)
    }

    /// Runs a command, without the key in it, if the value is the expected one.
    async fn if_unchanged(
        &self,
        key: &str,
        expected: &str,
        command: &[String],
    ) -> Result<Changed, StoreError> {
        let found: Option<(i64, Option<Vec<u8>>)> = if self.options.wait_replicas == 0 {
            let mut script = self.if_unchanged.key(key);
            script.arg(expected).arg(self.most_bytes()).arg(command);
            let result = script.invoke_async(&mut self.connection.clone()).await;
            result.map_err(store_error)?
        } else {
            let mut eval = cmd("EVAL");
            eval.arg(IF_UNCHANGED).arg(1).arg(key).arg(expected).arg(self.most_bytes());
            self.change(eval.arg(command)).await?
        };
        Ok(match found {
            None => Changed::Missing,
            Some((_, None)) => Changed::Done,
            Some((time_to_live, Some(data))) => Changed::Conflict(self.stored(&data, time_to_live)),
        })
    }

    /// Visits some keys. Returns those of sessions, and where to continue.
    async fn scan(&self, cursor: u64) -> Result<(Option<u64>, Vec<String>), StoreError> {
        if let Connection::Cluster(_) = self.connection {
            return Err(StoreError::new(
                "sessions in a Redis cluster cannot be listed: use redis-cli on each server",
            ));
        }
        let mut command = cmd("SCAN");
        command.arg(cursor).arg("MATCH").arg(format!("{}*", escaped(&self.options.prefix)));
        command.arg("COUNT").arg(KEYS_PER_SCAN).arg("TYPE").arg("string");
        let (next, mut keys): (u64, Vec<String>) = self.run(&command).await?;
        // A key may be returned several times.
        keys.sort_unstable();
        keys.dedup();
        Ok(((next != 0).then_some(next), keys))
    }
}

#[async_trait]
impl Store for RedisStore {
    fn name(&self) -> &'static str {
        "redis"
    }

    async fn watch(
        &self,
        ended: &(dyn for<'i> Fn(&'i str) + Send + Sync),
    ) -> Result<(), StoreError> {
        let Some(client) = &self.listening else { return std::future::pending().await };
        // A user that may not read the configuration may listen all the same.
        let told = cmd("CONFIG").arg("GET").arg("notify-keyspace-events").to_owned();
        if let Ok((_, told)) = self.run::<(String, String)>(&told).await
            && !(told.contains('K') && told.contains(['g', 'A']))
        {
            return Err(StoreError::new("its notify-keyspace-events must contain Kg"));
        }
        let (sender, mut events) = mpsc::unbounded_channel();
        let config = config(self.options.timeout).set_push_sender(sender);
        let connection = client.get_multiplexed_async_connection_with_config(&config).await;
        let mut connection = connection.map_err(store_error)?;
        let database = connection.get_db();
        let space = format!("__keyspace@{database}__:{}", self.options.prefix);
        let pattern = format!("{}*", escaped(&space));
        connection.psubscribe(pattern).await.map_err(store_error)?;
        loop {
            let Ok(event) = timeout(SILENCE, events.recv()).await else {
                // A connection may be lost without an error.
                cmd("PING").query_async::<Value>(&mut connection).await.map_err(store_error)?;
                continue;
            };
            let Some(PushInfo { kind, data }) = event else { break };
            match (kind, &data[..]) {
                (PushKind::Disconnection, _) => break,
                (PushKind::PMessage, [_, Value::BulkString(channel), Value::BulkString(event)])
                    if event == b"del" =>
                {
                    if let Some(id) = std::str::from_utf8(channel).ok()
                        && let Some(id) = id.strip_prefix(&space)
                    {
                        ended(id);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn load(&self, id: &str) -> Result<Option<Stored>, StoreError> {
        let key = self.key(id);
        let mut commands = Pipeline::with_capacity(2);
        commands.getrange(&key, 0, self.options.max_session_bytes as isize).pttl(&key);
        let (data, time_to_live): (Vec<u8>, i64) = self.read(&commands).await?;
        Ok((time_to_live != MISSING).then(|| self.stored(&data, time_to_live)))
    }

    async fn create(&self, id: &str, content: Content) -> Result<Created, StoreError> {
        let (key, set) = (self.key(id), self.set(content));
        let is_new = if set[0] == "SET" {
            let mut command = cmd("SET");
            command.arg(key).arg(&set[1..]).arg("NX");
            self.change::<Option<String>>(&command).await?.is_some()
        } else {
            !self.run::<bool>(cmd("EXISTS").arg(key)).await?
        };
        Ok(if is_new { Created::Done } else { Created::Taken })
    }

    async fn replace(
        &self,
        id: &str,
        content: Content,
        expected: Option<&str>,
    ) -> Result<Changed, StoreError> {
        let (key, set) = (self.key(id), self.set(content));
        match expected {
            Some(expected) => self.if_unchanged(&key, expected, &set).await,
            None => {
                let mut command = cmd(&set[0]);
                command.arg(key).arg(&set[1..]);
                self.change::<Value>(&command).await?;
                Ok(Changed::Done)
            }
        }
    }

    async fn touch(&self, id: &str, expires: u64) -> Result<Changed, StoreError> {
        if self.options.disable_touch {
            return Ok(Changed::Done);
        }
        let key = self.key(id);
        let exists: bool = match self.options.disable_ttl {
            true => self.run(cmd("EXISTS").arg(key)).await?,
            false => self.run(cmd("EXPIRE").arg(key).arg(self.lifetime(expires))).await?,
        };
        Ok(if exists { Changed::Done } else { Changed::Missing })
    }

    async fn delete(&self, id: &str, expected: Option<&str>) -> Result<Changed, StoreError> {
        let key = self.key(id);
        if let Some(expected) = expected {
            return self.if_unchanged(&key, expected, &["DEL".to_owned()]).await;
        }
        let existed: bool = self.change(cmd("DEL").arg(key)).await?;
        Ok(if existed { Changed::Done } else { Changed::Missing })
    }
}

#[async_trait]
impl Browse for RedisStore {
    async fn page(&self, after: Option<&str>) -> Result<Page, StoreError> {
        let cursor = after.map_or(Ok(0), str::parse);
        let mut cursor = cursor.map_err(|_| StoreError::new("the place is not one of SCAN"))?;
        loop {
            let (next, keys) = self.scan(cursor).await?;
            let mut commands = Pipeline::with_capacity(keys.len() * 2);
            for key in &keys {
                commands.getrange(key, 0, self.options.max_session_bytes as isize).pttl(key);
            }
            let mut found: Vec<(Vec<u8>, i64)> = Vec::new();
            if !keys.is_empty() {
                found = pairs(self.read(&commands).await?);
            }
            let entries = keys.iter().zip(found).filter(|(_, (_, left))| *left != MISSING);
            let entries: Vec<_> = entries
                .map(|(key, (data, left))| {
                    let id = &key[self.options.prefix.len()..];
                    Entry {
                        key: id.to_owned(),
                        digest: digest(id),
                        stored: self.stored(&data, left),
                        created: None,
                    }
                })
                .collect();
            match next {
                Some(next) if entries.is_empty() => cursor = next,
                _ => return Ok(Page { entries, next: next.map(|next| next.to_string()) }),
            }
        }
    }

    async fn remove(&self, key: &str) -> Result<bool, StoreError> {
        self.run(cmd("DEL").arg(self.key(key))).await
    }

    async fn count(&self) -> Result<u64, StoreError> {
        let (mut count, mut cursor) = (0, Some(0));
        while let Some(at) = cursor {
            let (next, keys) = self.scan(at).await?;
            (count, cursor) = (count + keys.len() as u64, next);
        }
        Ok(count)
    }
}

/// Groups the replies of a pipeline by key.
fn pairs(replies: Vec<Value>) -> Vec<(Vec<u8>, i64)> {
    let pair = |pair: &[Value]| {
        let data = Vec::<u8>::from_redis_value_ref(pair.first()?).ok()?;
        Some((data, i64::from_redis_value_ref(pair.get(1)?).ok()?))
    };
    replies.chunks(2).map(|it| pair(it).unwrap_or((Vec::new(), MISSING))).collect()
}

/// Escapes what has a meaning in the patterns of `SCAN`.
fn escaped(prefix: &str) -> String {
    let mut pattern = String::with_capacity(prefix.len());
    for character in prefix.chars() {
        if matches!(character, '*' | '?' | '[' | ']' | '^' | '-' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern
}

fn invalid_address() -> StoreError {
    // The library's text may quote a part of the address.
    StoreError::new(
        "the redis:// address is not valid: it is redis://USER:PASSWORD@HOST:PORT/DATABASE, with \
         what is special in a user or password percent-encoded",
    )
}

fn invalid_sentinels() -> StoreError {
    StoreError::new(
        "the address of Redis sentinels is not valid: it is \
         redis+sentinel://USER:PASSWORD@HOST:PORT,HOST:PORT/NAME, with the sentinels and the name \
         of the master, and with what is special in a user or password percent-encoded",
    )
}

/// Explains an error. The server's text is left out, since it may name a key, which is secret.
fn store_error(error: RedisError) -> StoreError {
    let of_server = error.clone().into_server_errors();
    let (code, details) = match of_server.as_deref() {
        Some([(_, error), ..]) => (error.code(), error.details().unwrap_or_default()),
        _ => ("", ""),
    };
    let what = match code {
        "NOAUTH" | "WRONGPASS" => "Redis refuses the user or the password",
        // The latter is the user of a script.
        "NOPERM" => FORBIDDEN,
        "ERR" if details.contains("executing the script can't") => FORBIDDEN,
        "READONLY" => "this Redis server is a read-only replica: the address must name the master",
        "LOADING" => "Redis is still loading its data",
        "MOVED" | "ASK" => {
            "this Redis server is part of a cluster: its address is redis+cluster://HOST:PORT"
        }
        "CLUSTERDOWN" => "the Redis cluster is down",
        "MASTERDOWN" => "this Redis server is a replica that has lost its master",
        "OOM" => {
            "Redis is full (OOM): raise its maxmemory, or let it evict keys (maxmemory-policy)"
        }
        "MISCONF" => "Redis cannot save its data to disk (MISCONF): see its log",
        "WRONGTYPE" => "a session's key holds another type: another program uses it",
        "NOREPLICAS" => "Redis has too few replicas to accept writes (NOREPLICAS)",
        "" if error.is_timeout() => "Redis did not reply in time",
        "" if error.kind() == ErrorKind::MasterNameNotFoundBySentinel => {
            "the Redis sentinels do not know a master of this name, or it is down"
        }
        "" if error.kind() == ErrorKind::AuthenticationFailed => {
            "Redis refuses the user or the password"
        }
        "" if error.is_io_error() => "Redis cannot be reached, or closed the connection",
        "" => return StoreError::new(format!("Redis failed: {}", error.category())),
        code => return StoreError::new(format!("Redis answered with {code}")),
    };
    StoreError::new(what)
}

const FORBIDDEN: &str = "the Redis user may not do this: allow it the commands PING, GET, \
                         GETRANGE, SET, PTTL, EXPIRE, EXISTS, DEL, EVALSHA and SCRIPT LOAD (with \
                         sentinels, ROLE), and the keys with the prefix";
