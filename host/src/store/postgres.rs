//! `postgres://…` — sessions in PostgreSQL, in the table of connect-pg-simple, so that a Node
//! application shares them.
//!
//! Statements are sent with their parameters in one message each. By default they are not prepared
//! by name: they need no state of a connection, and work through PgBouncer in its transaction mode.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use deadpool_postgres::{
    Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime,
};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_postgres::error::{Severity, SqlState};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Config, Row};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{Browse, Changed, Content, Created, Entry, Page, Store, StoreError, Stored, digest};

/// How many sessions a page has.
const PAGE: i64 = 500;

/// connect-pg-simple's options.
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    /// The schema of the table. Default: none, so that the user's `search_path` decides.
    pub schema: Option<String>,
    /// The table. Default: `session`.
    pub table: String,
    /// Create the table if it is missing. Default: false.
    pub create_table: bool,
    /// How often expired sessions are deleted, give or take a half. None: never. Default: 15
    /// minutes.
    pub prune_interval: Option<Duration>,
    /// Do not prolong sessions that are only read. Default: false.
    pub disable_touch: bool,
    /// The most connections to the server. Default: 10.
    pub connections: usize,
    /// Prepare each statement by name, once for each connection: PostgreSQL then parses and plans it
    /// only once. Not for connections through a pooler that hands out another connection for each
    /// transaction, such as PgBouncer with `pool_mode = transaction` and `max_prepared_statements =
    /// 0` (its default before 1.24): names are not unique there. Default: false.
    pub prepare: bool,
    /// Of a larger session, only so much is fetched that it counts as damaged: set it together with
    /// the option `max_session_bytes`. Default: 1 MiB.
    pub max_session_bytes: u32,
    /// How long to wait for a connection, and for the result of a statement. Default: 2 s.
    pub timeout: Duration,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            schema: None,
            table: "session".to_owned(),
            create_table: false,
            prune_interval: Some(Duration::from_secs(15 * 60)),
            disable_touch: false,
            connections: 10,
            prepare: false,
            max_session_bytes: 1 << 20,
            timeout: Duration::from_secs(2),
        }
    }
}

/// Sessions in PostgreSQL. A confirmed write is on the server's disk, unless its
/// `synchronous_commit` is off.
pub struct PostgresStore {
    inner: Arc<Inner>,
    /// Deletes expired sessions; ends with the store.
    pruning: Option<JoinHandle<()>>,
}

struct Inner {
    pool: Pool,
    tls: MakeRustlsConnect,
    statements: Statements,
    options: PostgresOptions,
    /// Whether statements are prepared by name: until one was lost.
    prepares: AtomicBool,
    clock: Arc<dyn Fn() -> SystemTime + Send + Sync>,
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        if let Some(pruning) = &self.pruning {
            pruning.abort();
        }
    }
}

impl PostgresStore {
    /// Connects to the server and checks the table. Addresses are
    /// `postgres://USER:PASSWORD@HOST:PORT/DATABASE`, with the parameters of `libpq` that
    /// tokio-postgres knows: `sslmode=require` for TLS, several hosts with
    /// `target_session_attrs=read-write`.
    pub async fn connect(uri: &str, options: &PostgresOptions) -> Result<Self, StoreError> {
        let mut config = parse(uri)?;
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(options.timeout);
        }
        if config.get_application_name().is_none() {
            config.application_name("edge-session");
        }
        let settings = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let tls = tls();
        let manager = Manager::from_config(config, tls.clone(), settings);
        let pool = Pool::builder(manager)
            .max_size(options.connections)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(options.timeout))
            .create_timeout(Some(options.timeout))
            .build()
            .map_err(|_| StoreError::new("the connections to PostgreSQL cannot be managed"))?;
        let statements = Statements::new(options, "json");
        let clock: Arc<dyn Fn() -> SystemTime + Send + Sync> = Arc::new(SystemTime::now);
        let prepares = AtomicBool::new(options.prepare);
        let options = options.clone();
        let mut inner = Inner { pool, tls, statements, options, prepares, clock };
        let kind = inner.prepare_table().await?;
        inner.statements = Statements::new(&inner.options, kind);
        let inner = Arc::new(inner);
        let pruning = inner.options.prune_interval.map(|interval| {
            let inner = inner.clone();
            tokio::spawn(async move { inner.prune_often(interval).await })
        });
        Ok(Self { inner, pruning })
    }

    /// Checks that `uri` is a valid address, without connecting.
    pub fn check_address(uri: &str) -> Result<(), StoreError> {
        parse(uri).map(|_| ())
    }

    /// Takes the time from `clock` instead of the system: for tests. Nothing is pruned.
    #[must_use]
    pub fn with_clock(self, clock: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        let Inner { pool, tls, statements, options, .. } = &*self.inner;
        let inner = Inner {
            pool: pool.clone(),
            tls: tls.clone(),
            statements: statements.clone(),
            options: options.clone(),
            prepares: AtomicBool::new(options.prepare),
            clock: Arc::new(clock),
        };
        Self { inner: Arc::new(inner), pruning: None }
    }
}

fn parse(uri: &str) -> Result<Config, StoreError> {
    let config = uri.parse::<Config>().map_err(|error| {
        // It names an option or what is wrong. An @ that is not encoded may have made a part of the
        // password an option.
        let is_clear = uri.matches('@').count() < 2 && !uri.contains("?@");
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        let cause = cause.filter(|_| is_clear);
        let cause = cause.map(|cause| format!(" ({cause})")).unwrap_or_default();
        StoreError::new(format!("{INVALID}{cause}"))
    })?;
    match config.get_hosts() {
        [] => Err(StoreError::new(INVALID)),
        _ => Ok(config),
    }
}

const INVALID: &str = "the postgres:// address is not valid: it is \
                       postgres://USER:PASSWORD@HOST:PORT/DATABASE, with what is special in a user \
                       or password percent-encoded";

/// Trusts the system's certificates, or those of `SSL_CERT_FILE`; else Mozilla's.
fn tls() -> MakeRustlsConnect {
    match MakeRustlsConnect::with_native_certs() {
        Ok((tls, _)) => tls,
        Err(_) => MakeRustlsConnect::with_webpki_roots(),
    }
}

/// The statements, with the table's name in them. Simple ones: PostgreSQL may parse and plan them
/// each time.
#[derive(Clone)]
struct Statements {
    load: String,
    create: String,
    upsert: String,
    replace: String,
    touch: String,
    delete: String,
    delete_if: String,
    prune: String,
    page: String,
    remove: String,
    count: String,
}

impl Statements {
    /// `kind`: the type of the column `sess`, `json` or `jsonb`. Casts between `expire`, which has
    /// no time zone, and times are PostgreSQL's, as in connect-pg-simple: the server's `TimeZone`
    /// decides.
    fn new(options: &PostgresOptions, kind: &str) -> Self {
        let table = table(options);
        let upsert = format!(
            "INSERT INTO {table} AS it (sid, sess, expire) VALUES ($1, $2::{kind}, $3) \
             ON CONFLICT (sid) DO UPDATE SET sess = excluded.sess, expire = excluded.expire"
        );
        let is_live = |now: &str| format!("expire > {now}");
        Self {
            load: format!(
                "SELECT left(sess::text, $2), expire::timestamptz FROM {table} WHERE sid = $1"
            ),
            // An expired session may not have been pruned yet.
            create: format!("{upsert} WHERE it.expire <= $4 RETURNING 1"),
            replace: format!(
                "UPDATE {table} SET sess = $2::{kind}, expire = $3 \
                 WHERE sid = $1 AND {} AND sess::text = $5 RETURNING 1",
                is_live("$4")
            ),
            touch: format!(
                "UPDATE {table} SET expire = $2 WHERE sid = $1 AND {} RETURNING 1",
                is_live("$3")
            ),
            delete: format!("DELETE FROM {table} WHERE sid = $1 RETURNING {}", is_live("$2")),
            delete_if: format!(
                "DELETE FROM {table} WHERE sid = $1 AND {} AND sess::text = $3 RETURNING 1",
                is_live("$2")
            ),
            prune: format!("DELETE FROM {table} WHERE expire < $1"),
            page: format!(
                "SELECT sid, left(sess::text, $3), expire::timestamptz FROM {table} \
                 WHERE sid > $1 AND {} ORDER BY sid LIMIT {PAGE}",
                is_live("$2")
            ),
            remove: format!("DELETE FROM {table} WHERE sid = $1 RETURNING 1"),
            count: format!("SELECT count(*) FROM {table}"),
            upsert: format!("{upsert} RETURNING 1"),
        }
    }
}

/// Returns the table's name as SQL has it.
fn table(options: &PostgresOptions) -> String {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    match &options.schema {
        Some(schema) => format!("{}.{}", quoted(schema), quoted(&options.table)),
        None => quoted(&options.table),
    }
}

/// The parameters of a statement, with their types.
type Parameters<'p> = [(&'p (dyn ToSql + Sync), Type)];

/// A connection whose statement runs. If it is dropped before the end, the statement is canceled and
/// the connection is closed: otherwise, the next statement would have to wait, and this one could
/// take effect much later.
struct Busy<'i> {
    connection: Option<Object>,
    tls: &'i MakeRustlsConnect,
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        let cancel = connection.cancel_token();
        drop(Object::take(connection));
        if let Ok(runtime) = Handle::try_current() {
            let tls = self.tls.clone();
            runtime.spawn(timeout(CANCELING, async move { cancel.cancel_query(tls).await }));
        }
    }
}

/// Whether PostgreSQL does not have a prepared statement: it is on another connection, or was removed,
/// and another one may have its name. The statement has done nothing then.
fn is_lost(error: &tokio_postgres::Error) -> bool {
    let Some(error) = error.as_db_error() else { return false };
    match *error.code() {
        SqlState::INVALID_SQL_STATEMENT_NAME | SqlState::DUPLICATE_PSTATEMENT => true,
        // Other parameters were expected. PgBouncer closes connections with the same code.
        SqlState::PROTOCOL_VIOLATION => error.parsed_severity() == Some(Severity::Error),
        _ => false,
    }
}

/// How long canceling a statement may take: it needs a connection of its own.
const CANCELING: Duration = Duration::from_secs(5);

/// Why a statement failed.
struct Fault {
    error: StoreError,
    /// The server has closed the connection.
    is_closed: bool,
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self { error, is_closed: false }
    }
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        fault.error
    }
}

impl Inner {
    fn now(&self) -> SystemTime {
        (self.clock)()
    }

    /// How many characters of a session are read at most.
    fn most(&self) -> i32 {
        i32::try_from(self.options.max_session_bytes).map_or(i32::MAX, |it| it.saturating_add(1))
    }

    async fn query(&self, sql: &str, with: &Parameters<'_>) -> Result<Vec<Row>, Fault> {
        let deadline = Instant::now() + self.options.timeout;
        let connection = self.pool.get().await.map_err(|error| match error {
            PoolError::Timeout(_) => late().into(),
            PoolError::Backend(error) => fault(&error),
            _ => StoreError::new("the connections to PostgreSQL cannot be managed").into(),
        })?;
        let mut busy = Busy { connection: Some(connection), tls: &self.tls };
        let Some(connection) = &busy.connection else { return Err(late().into()) };
        match timeout_at(deadline, self.run(connection, sql, with)).await {
            Ok(rows) => {
                drop(busy.connection.take());
                rows.map_err(|error| fault(&error))
            }
            Err(_) => Err(late().into()),
        }
    }

    async fn run(
        &self,
        connection: &Object,
        sql: &str,
        with: &Parameters<'_>,
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        if self.prepares.load(Ordering::Relaxed) {
            let rows = async {
                let types: Vec<_> = with.iter().map(|(_, kind)| kind.clone()).collect();
                let statement = connection.prepare_typed_cached(sql, &types).await?;
                let values: Vec<_> = with.iter().map(|(value, _)| *value).collect();
                connection.query(&statement, &values).await
            };
            match rows.await {
                Err(error) if is_lost(&error) => {
                    if self.prepares.swap(false, Ordering::Relaxed) {
                        tracing::warn!(
                            "PostgreSQL has lost a prepared statement, or has another one by its \
                             name: statements are no longer prepared. Set `prepare` to false behind \
                             a pooler that hands out connections by transaction"
                        );
                    }
                }
                rows => return rows,
            }
        }
        connection.query_typed(sql, with).await
    }

    /// Runs a statement that returns a row for each one that it changes, and returns whether there
    /// was any.
    async fn changes(&self, sql: &str, with: &Parameters<'_>) -> Result<bool, StoreError> {
        Ok(!self.query(sql, with).await?.is_empty())
    }

    async fn load(&self, id: &str) -> Result<Option<Stored>, StoreError> {
        // No text of PostgreSQL has this character.
        if id.contains('\0') {
            return Ok(None);
        }
        let (now, most) = (self.now(), self.most());
        let with: &Parameters<'_> = &[(&id, Type::TEXT), (&most, Type::INT4)];
        let rows = match self.query(&self.statements.load, with).await {
            // The server may have been restarted since the last request.
            Err(Fault { is_closed: true, .. }) => self.query(&self.statements.load, with).await?,
            rows => rows?,
        };
        let Some(row) = rows.first() else { return Ok(None) };
        let (stored, end) = stored(row, 0)?;
        // To SQL, what has no end is not later than now.
        Ok(Some(stored).filter(|_| end > Some(now)))
    }

    /// Returns why a conditional change did nothing.
    async fn conflict(&self, id: &str) -> Result<Changed, StoreError> {
        Ok(self.load(id).await?.map_or(Changed::Missing, Changed::Conflict))
    }

    /// Creates the table if that is wanted, and returns the type of its column `sess`. Fails if the
    /// table is missing or is another one.
    async fn prepare_table(&self) -> Result<&'static str, StoreError> {
        let name = table(&self.options);
        let mut columns = self.columns(&name).await?;
        if columns.is_empty() && self.options.create_table {
            let index = format!("IDX_{}_expire", self.options.table).replace('"', "\"\"");
            // As connect-pg-simple creates it. Where several processes do it at once, some fail.
            let sql = format!(
                "CREATE TABLE IF NOT EXISTS {name} (sid varchar NOT NULL COLLATE \"default\" \
                 PRIMARY KEY, sess json NOT NULL, expire timestamp(6) NOT NULL)"
            );
            let created = self.query(&sql, &[]).await;
            columns = self.columns(&name).await?;
            if columns.is_empty() {
                created?;
            }
            let sql = format!("CREATE INDEX IF NOT EXISTS \"{index}\" ON {name} (expire)");
            if let Err(Fault { error, .. }) = self.query(&sql, &[]).await {
                tracing::info!(
                    "the index on expire was not created, or another process did: {error}"
                );
            }
        }
        let kind = |column: &str| {
            columns.iter().find(|(name, _)| name == column).map(|(_, kind)| kind.as_str())
        };
        let is_text = |kind: Option<&str>| {
            kind.is_some_and(|kind| kind.starts_with("character varying") || kind == "text")
        };
        let is_time = |kind: Option<&str>| kind.is_some_and(|kind| kind.starts_with("timestamp"));
        match kind("sess") {
            _ if columns.is_empty() => Err(StoreError::new(format!(
                "PostgreSQL has no table {name}: create it, or set create_table to true"
            ))),
            Some("json") if is_text(kind("sid")) && is_time(kind("expire")) => Ok("json"),
            Some("jsonb") if is_text(kind("sid")) && is_time(kind("expire")) => Ok("jsonb"),
            _ => Err(StoreError::new(format!(
                "PostgreSQL's table {name} has other columns than connect-pg-simple's: sid varchar, \
                 sess json, expire timestamp(6)"
            ))),
        }
    }

    /// Returns the columns of a table and their types; none if it does not exist.
    async fn columns(&self, table: &str) -> Result<Vec<(String, String)>, StoreError> {
        let sql = "SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute \
                   WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped";
        let rows = self.query(sql, &[(&table, Type::TEXT)]).await?;
        let column = |row: &Row| Some((row.try_get(0).ok()?, row.try_get(1).ok()?));
        Ok(rows.iter().filter_map(column).collect())
    }

    /// Deletes expired sessions, each time after 50 to 150 % of the interval, as connect-pg-simple
    /// does, so that many processes do not do it at once.
    async fn prune_often(&self, interval: Duration) {
        loop {
            sleep(interval.mul_f64(0.5 + rand::random::<f64>())).await;
            let now = self.now();
            let pruned = self.query(&self.statements.prune, &[(&now, Type::TIMESTAMPTZ)]).await;
            if let Err(Fault { error, .. }) = pruned {
                tracing::warn!("expired sessions were not removed: {error}");
            }
        }
    }
}

/// Reads a session's text and expiry from two columns.
fn stored(row: &Row, at: usize) -> Result<(Stored, Option<SystemTime>), StoreError> {
    let read = || Some((row.try_get(at).ok()?, row.try_get::<_, Option<SystemTime>>(at + 1).ok()?));
    let (data, end) =
        read().ok_or_else(|| StoreError::new("PostgreSQL returned another type than expected"))?;
    let since = end.map(|end| end.duration_since(UNIX_EPOCH).unwrap_or_default());
    let expires = since.and_then(|since| u64::try_from(since.as_millis()).ok());
    let expires = expires.filter(|millis| *millis <= LAST);
    Ok((Stored { data, expires, touched: None }, end))
}

/// Returns the whole second in which a session expires, as connect-pg-simple rounds it.
fn expiry(expires: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(expires.min(LAST).div_ceil(1000))
}

/// The greatest time of JavaScript, in milliseconds since the Unix epoch. PostgreSQL's is greater,
/// and `infinity` even more so.
const LAST: u64 = 8_640_000_000_000_000;

#[async_trait]
impl Store for PostgresStore {
    fn name(&self) -> &'static str {
        "postgres"
    }

    async fn load(&self, id: &str) -> Result<Option<Stored>, StoreError> {
        self.inner.load(id).await
    }

    async fn create(&self, id: &str, content: Content) -> Result<Created, StoreError> {
        let (it, expires) = (&self.inner, expiry(content.expires));
        let now = it.now();
        let with: &Parameters<'_> = &[
            (&id, Type::TEXT),
            (&content.data, Type::TEXT),
            (&expires, Type::TIMESTAMPTZ),
            (&now, Type::TIMESTAMPTZ),
        ];
        let is_new = it.changes(&it.statements.create, with).await?;
        Ok(if is_new { Created::Done } else { Created::Taken })
    }

    async fn replace(
        &self,
        id: &str,
        content: Content,
        expected: Option<&str>,
    ) -> Result<Changed, StoreError> {
        let (it, expires) = (&self.inner, expiry(content.expires));
        let now = it.now();
        let with: &Parameters<'_> = &[
            (&id, Type::TEXT),
            (&content.data, Type::TEXT),
            (&expires, Type::TIMESTAMPTZ),
            (&now, Type::TIMESTAMPTZ),
            (&expected, Type::TEXT),
        ];
        match expected {
            None => it.changes(&it.statements.upsert, &with[..3]).await.map(|_| Changed::Done),
            Some(_) if it.changes(&it.statements.replace, with).await? => Ok(Changed::Done),
            Some(_) => it.conflict(id).await,
        }
    }

    async fn touch(&self, id: &str, expires: u64) -> Result<Changed, StoreError> {
        let it = &self.inner;
        if it.options.disable_touch {
            return Ok(Changed::Done);
        }
        let (expires, now) = (expiry(expires), it.now());
        let with: &Parameters<'_> =
            &[(&id, Type::TEXT), (&expires, Type::TIMESTAMPTZ), (&now, Type::TIMESTAMPTZ)];
        let exists = it.changes(&it.statements.touch, with).await?;
        Ok(if exists { Changed::Done } else { Changed::Missing })
    }

    async fn delete(&self, id: &str, expected: Option<&str>) -> Result<Changed, StoreError> {
        let (it, now) = (&self.inner, self.inner.now());
        let with: &Parameters<'_> =
            &[(&id, Type::TEXT), (&now, Type::TIMESTAMPTZ), (&expected, Type::TEXT)];
        if expected.is_some() {
            return match it.changes(&it.statements.delete_if, with).await? {
                true => Ok(Changed::Done),
                false => it.conflict(id).await,
            };
        }
        let rows = it.query(&it.statements.delete, &with[..2]).await?;
        let was_live = rows.first().is_some_and(|row| row.try_get(0).unwrap_or(false));
        Ok(if was_live { Changed::Done } else { Changed::Missing })
    }
}

#[async_trait]
impl Browse for PostgresStore {
    async fn page(&self, after: Option<&str>) -> Result<Page, StoreError> {
        let (it, now, most) = (&self.inner, self.inner.now(), self.inner.most());
        let after = after.unwrap_or_default();
        let with: &Parameters<'_> =
            &[(&after, Type::TEXT), (&now, Type::TIMESTAMPTZ), (&most, Type::INT4)];
        let rows = it.query(&it.statements.page, with).await?;
        let mut entries = Vec::with_capacity(rows.len());
        for row in &rows {
            let id: String = row.try_get(0).map_err(|error| fault(&error))?;
            let (digest, (stored, _)) = (digest(&id), stored(row, 1)?);
            entries.push(Entry { key: id, digest, stored, created: None });
        }
        let is_last = (entries.len() as i64) < PAGE;
        let next = entries.last().filter(|_| !is_last).map(|entry| entry.key.clone());
        Ok(Page { entries, next })
    }

    async fn remove(&self, key: &str) -> Result<bool, StoreError> {
        let it = &self.inner;
        it.changes(&it.statements.remove, &[(&key, Type::TEXT)]).await
    }

    async fn count(&self) -> Result<u64, StoreError> {
        let it = &self.inner;
        let rows = it.query(&it.statements.count, &[]).await?;
        let count: i64 = rows.first().and_then(|row| row.try_get(0).ok()).unwrap_or(0);
        Ok(u64::try_from(count).unwrap_or(0))
    }
}

fn late() -> StoreError {
    StoreError::new("PostgreSQL did not reply in time")
}

fn fault(error: &tokio_postgres::Error) -> Fault {
    let shuts_down = [SqlState::ADMIN_SHUTDOWN, SqlState::CRASH_SHUTDOWN];
    let is_closed = error.is_closed() || error.code().is_some_and(|code| shuts_down.contains(code));
    Fault { error: store_error(error), is_closed }
}

/// Explains an error. The server's text is left out, since it may quote a key, which is secret.
fn store_error(error: &tokio_postgres::Error) -> StoreError {
    let Some(code) = error.code() else {
        return StoreError::new("PostgreSQL cannot be reached, or closed the connection");
    };
    let what = match code {
        &SqlState::INVALID_PASSWORD | &SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
            "PostgreSQL refuses the user or the password"
        }
        &SqlState::INVALID_CATALOG_NAME => "PostgreSQL does not have the database in the address",
        &SqlState::UNDEFINED_TABLE => {
            "PostgreSQL no longer has the table of sessions: create it again"
        }
        &SqlState::INSUFFICIENT_PRIVILEGE => {
            "the PostgreSQL user may not do this: grant it SELECT, INSERT, UPDATE and DELETE on the \
             table of sessions (to create the table: CREATE on the schema)"
        }
        // `ON CONFLICT (sid)` needs the primary key; a further column may have to have a value.
        &SqlState::UNDEFINED_COLUMN
        | &SqlState::DATATYPE_MISMATCH
        | &SqlState::CANNOT_COERCE
        | &SqlState::UNDEFINED_FUNCTION
        | &SqlState::INVALID_COLUMN_REFERENCE
        | &SqlState::NOT_NULL_VIOLATION => {
            "PostgreSQL's table of sessions has other columns than connect-pg-simple's: sid varchar \
             as the primary key, sess json, expire timestamp(6)"
        }
        &SqlState::READ_ONLY_SQL_TRANSACTION => {
            "this PostgreSQL server is read-only: the address must name the primary, or several \
             hosts and target_session_attrs=read-write"
        }
        &SqlState::DISK_FULL => "PostgreSQL's disk is full",
        &SqlState::OUT_OF_MEMORY => "PostgreSQL is out of memory",
        &SqlState::TOO_MANY_CONNECTIONS => {
            "PostgreSQL has no connection left: lower store.connections, or raise its \
             max_connections"
        }
        &SqlState::CANNOT_CONNECT_NOW => "PostgreSQL is starting up, or recovers",
        &SqlState::ADMIN_SHUTDOWN | &SqlState::CRASH_SHUTDOWN => "PostgreSQL is shutting down",
        &SqlState::QUERY_CANCELED => "PostgreSQL canceled the statement",
        &SqlState::LOCK_NOT_AVAILABLE => "PostgreSQL waits for another transaction's lock",
        &SqlState::T_R_SERIALIZATION_FAILURE | &SqlState::T_R_DEADLOCK_DETECTED => {
            "another transaction was in the way"
        }
        // The type of the column, or the encoding of the database, has no such text.
        &SqlState::INVALID_TEXT_REPRESENTATION
        | &SqlState::UNTRANSLATABLE_CHARACTER
        | &SqlState::CHARACTER_NOT_IN_REPERTOIRE
        | &SqlState::STRING_DATA_RIGHT_TRUNCATION
        | &SqlState::PROGRAM_LIMIT_EXCEEDED => {
            return StoreError::refused(
                "PostgreSQL cannot store this session: a column of the type jsonb, or the \
                 database's encoding, does not have all of its characters, or the session is too \
                 large",
            );
        }
        code => {
            return StoreError::new(format!("PostgreSQL answered with the error {}", code.code()));
        }
    };
    StoreError::new(what)
}
