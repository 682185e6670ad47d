//! `file:PATH` — sessions in one file, for one process: embedded and durable.
//!
//! Reads go to the database directly. Writes go through one thread that puts all waiting writes
//! into one transaction, so that one fsync serves many requests.
//!
//! redb fails permanently after the first I/O error, a full disk included. The thread then reopens
//! the file, so that sessions can be read, and retries writing after a while.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use redb::{
    Database, ReadableDatabase, ReadableTable, ReadableTableMetadata as _, Table, TableDefinition,
};
use tokio::sync::{mpsc, oneshot};

use super::{
    Browse, Changed, Content, Created, Entry, Page, Store, StoreError, Stored, digest, is_expired,
    now,
};

/// Identifier → (expiry, text). [`NEVER`] stands for no expiry.
const SESSIONS: TableDefinition<'_, &str, (u64, &str)> = TableDefinition::new("sessions");

/// (Expiry, identifier), to find expired sessions without reading all.
const EXPIRIES: TableDefinition<'_, (u64, &str), ()> = TableDefinition::new("expiries");

/// Identifier → when the session was created.
const CREATED: TableDefinition<'_, &str, u64> = TableDefinition::new("created");

const NEVER: u64 = u64::MAX;

/// The maximum number of writes in one transaction.
const BATCH: usize = 512;

/// How often expired sessions are deleted, and the maximum number per transaction.
const SWEEP: Duration = Duration::from_secs(60);
const SWEPT_AT_ONCE: usize = 10_000;

/// The number of sessions read for one page.
const PAGE: usize = 1000;

/// How long writing pauses after an I/O error.
const PAUSE: Duration = Duration::from_secs(1);

/// Sessions in the file of an embedded database. A confirmed write survives a crash of the process
/// and of the machine. Cheap to clone.
#[derive(Clone)]
pub struct FileStore {
    opened: Opened,
    orders: mpsc::Sender<Order>,
}

/// The database, or why it could not be reopened.
#[derive(Clone)]
struct Opened(Arc<Mutex<Result<Arc<Database>, String>>>);

impl Opened {
    fn get(&self) -> Result<Arc<Database>, String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace(&self, with: Result<Arc<Database>, String>) -> Result<Arc<Database>, String> {
        let mut opened = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *opened, with)
    }
}

/// A task for the writing thread.
enum Order {
    Write(Write, Reply),
    /// Reopen the file if it has failed, and notify the sender.
    Open(oneshot::Sender<()>),
}

type Reply = oneshot::Sender<Result<Written, StoreError>>;

enum Write {
    Create(String, Content),
    Replace(String, Content, Option<String>),
    Touch(String, u64),
    Delete(String, Option<String>),
}

/// The result of a write; for a creation, [`Changed::Conflict`] means [`Created::Taken`].
type Written = Changed;

impl FileStore {
    /// Opens the database in the file `path`, and creates it and its directory if missing. Only one
    /// process at a time can open it.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref().to_owned();
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).map_err(|error| {
                let message =
                    format!("cannot create the directory {}: {error}", directory.display());
                StoreError::new(message).caused_by(error)
            })?;
        }
        Self::opened_by(path, open, PAUSE)
    }

    fn opened_by(
        path: PathBuf,
        open: impl Fn(&Path, bool) -> Result<Database, StoreError> + Send + 'static,
        pause: Duration,
    ) -> Result<Self, StoreError> {
        let opened = Opened(Arc::new(Mutex::new(Ok(Arc::new(open(&path, true)?)))));
        let (orders, queue) = mpsc::channel(4 * BATCH);
        let place = Place { file: identity(&path), path, length: 0, told: None };
        let writer = Writer { opened: opened.clone(), place, open, queue, pause, failed: None };
        thread::Builder::new()
            .name("edge-session-file".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| StoreError::new("cannot start the writing thread").caused_by(error))?;
        Ok(Self { opened, orders })
    }

    /// Reads from the database, which may wait for the disk.
    async fn read<T: Send + 'static>(
        &self,
        read: impl Fn(&Database) -> Result<T, redb::Error> + Send + Sync + 'static,
    ) -> Result<T, StoreError> {
        let read = Arc::new(read);
        let mut is_second = false;
        loop {
            let failed = match self.opened.get() {
                Ok(database) => {
                    let read = read.clone();
                    let reading = tokio::task::spawn_blocking(move || read(&database));
                    let stopped =
                        |error| StoreError::new("the read was interrupted").caused_by(error);
                    match reading.await.map_err(stopped)? {
                        Ok(found) => return Ok(found),
                        Err(error) if is_final(&error) => unusable(error),
                        Err(error) => return Err(unusable(error)),
                    }
                }
                Err(why) => StoreError::new(why),
            };
            if is_second {
                return Err(failed);
            }
            // A write may have just failed.
            let (done, is_open) = oneshot::channel();
            self.order(Order::Open(done)).await?;
            let _ = is_open.await;
            is_second = true;
        }
    }

    async fn write(&self, write: Write) -> Result<Written, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.order(Order::Write(write, reply)).await?;
        answer.await.map_err(|_| stopped())?
    }

    async fn order(&self, order: Order) -> Result<(), StoreError> {
        self.orders.send(order).await.map_err(|_| stopped())
    }
}

fn stopped() -> StoreError {
    StoreError::new("the file store's writing thread has stopped")
}

/// Returns whether the database can no longer be used after this error.
fn is_final(error: &redb::Error) -> bool {
    use redb::Error as E;
    matches!(
        error,
        E::Io(_) | E::PreviousIo | E::Backend(_) | E::LockPoisoned(_) | E::DatabaseClosed
    )
}

/// Opens the database's file, readable by its owner only, since session data is private. Creates a
/// missing file only with `may_begin`.
fn open(path: &Path, may_begin: bool) -> Result<Database, StoreError> {
    let failed = |reason: String| {
        StoreError::new(format!("cannot open the session file {}: {reason}", path.display()))
    };
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).create(may_begin).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path).map_err(|error| failed(error.to_string()))?;
    let holds_nothing = holds_nothing(&file).map_err(|error| failed(error.to_string()))?;
    if holds_nothing && !may_begin {
        return Err(failed("it is empty now".to_owned()));
    }
    if holds_nothing {
        // A first start on a full disk left an unusable file.
        file.set_len(0).map_err(|error| failed(error.to_string()))?;
    }
    let backend = redb::backends::FileBackend::new(file);
    let opened = backend.and_then(|backend| Database::builder().create_with_backend(backend));
    let database = opened.map_err(|error| match error {
        redb::DatabaseError::DatabaseAlreadyOpen => {
            failed("another process has it open. Stop that process, or use another file".into())
        }
        error => failed(error.to_string()),
    })?;
    make_tables(&database).map_err(|error| failed(error.to_string()))?;
    Ok(database)
}

/// Returns whether the file contains only zeros.
fn holds_nothing(mut file: &std::fs::File) -> std::io::Result<bool> {
    use std::io::{Read as _, Seek as _};
    // Longer than redb's header, whose first bytes identify the file.
    let mut begin = Vec::new();
    file.take(1 << 12).read_to_end(&mut begin)?;
    file.rewind()?;
    Ok(begin.iter().all(|byte| *byte == 0))
}

/// Returns the identity of the file at a path; none if there is no file.
fn identity(path: &Path) -> Option<(u64, u64)> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        std::fs::metadata(path).ok().map(|it| (it.dev(), it.ino()))
    }
    #[cfg(not(unix))]
    {
        std::fs::metadata(path).ok().map(|_| (0, 0))
    }
}

/// Creates missing tables, so that every read finds them. Writes nothing if they exist, because the
/// disk may be full.
fn make_tables(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_read()?;
    let tables = transaction.open_table(SESSIONS).map(drop);
    let tables = tables.and_then(|()| transaction.open_table(EXPIRIES).map(drop));
    let tables = tables.and_then(|()| transaction.open_table(CREATED).map(drop));
    match tables {
        Ok(()) => return Ok(()),
        Err(redb::TableError::TableDoesNotExist(_)) => {}
        Err(error) => return Err(error.into()),
    }
    {
        let transaction = database.begin_write()?;
        transaction.open_table(SESSIONS)?;
        transaction.open_table(EXPIRIES)?;
        transaction.open_table(CREATED)?;
        Ok(transaction.commit()?)
    }
}

fn unusable(error: impl Into<redb::Error>) -> StoreError {
    let error = error.into();
    StoreError::new(format!("the session file failed: {error}")).caused_by(error)
}

#[async_trait]
impl Store for FileStore {
    fn name(&self) -> &'static str {
        "file"
    }

    async fn load(&self, id: &str) -> Result<Option<Stored>, StoreError> {
        let id = id.to_owned();
        let read = move |database: &Database| {
            let table = database.begin_read()?.open_table(SESSIONS)?;
            Ok(table.get(id.as_str())?.map(|found| stored(found.value())))
        };
        Ok(self.read(read).await?.filter(|stored| !is_expired(stored.expires, now())))
    }

    async fn create(&self, id: &str, content: Content) -> Result<Created, StoreError> {
        Ok(match self.write(Write::Create(id.to_owned(), content)).await? {
            Changed::Conflict(_) => Created::Taken,
            _ => Created::Done,
        })
    }

    async fn replace(
        &self,
        id: &str,
        content: Content,
        expected: Option<&str>,
    ) -> Result<Changed, StoreError> {
        self.write(Write::Replace(id.to_owned(), content, expected.map(str::to_owned))).await
    }

    async fn touch(&self, id: &str, expires: u64) -> Result<Changed, StoreError> {
        self.write(Write::Touch(id.to_owned(), expires)).await
    }

    async fn delete(&self, id: &str, expected: Option<&str>) -> Result<Changed, StoreError> {
        self.write(Write::Delete(id.to_owned(), expected.map(str::to_owned))).await
    }
}

#[async_trait]
impl Browse for FileStore {
    async fn page(&self, after: Option<&str>) -> Result<Page, StoreError> {
        let after = after.map(str::to_owned);
        let read = move |database: &Database| -> Result<_, redb::Error> {
            use std::ops::Bound::{Excluded, Unbounded};
            let transaction = database.begin_read()?;
            let created = transaction.open_table(CREATED)?;
            let from = after.as_deref().map_or(Unbounded, Excluded);
            let sessions = transaction.open_table(SESSIONS)?;
            let (mut page, now) = (Page::default(), now());
            for (count, row) in sessions.range::<&str>((from, Unbounded))?.enumerate() {
                let (key, value) = row?;
                let (key, stored) = (key.value().to_owned(), stored(value.value()));
                page.next = (count + 1 == PAGE).then(|| key.clone());
                if !is_expired(stored.expires, now) {
                    let created = created.get(key.as_str())?.map(|at| at.value());
                    page.entries.push(Entry { digest: digest(&key), key, stored, created });
                }
                if page.next.is_some() {
                    break;
                }
            }
            Ok(page)
        };
        self.read(read).await
    }

    async fn remove(&self, key: &str) -> Result<bool, StoreError> {
        Ok(self.delete(key, None).await? == Changed::Done)
    }

    async fn count(&self) -> Result<u64, StoreError> {
        self.read(|database| Ok(database.begin_read()?.open_table(SESSIONS)?.len()?)).await
    }
}

fn stored((expires, data): (u64, &str)) -> Stored {
    Stored { data: data.to_owned(), expires: (expires != NEVER).then_some(expires), touched: None }
}

/// The file's path, and its identity when it was opened.
struct Place {
    path: PathBuf,
    file: Option<(u64, u64)>,
    /// The file's length after our last write.
    length: u64,
    /// When it was last reported as missing.
    told: Option<Instant>,
}

impl Place {
    /// Reports that the file was moved or replaced: writes still go to the file that was opened.
    fn tell_if_moved(&mut self) {
        let is_due = self.told.is_none_or(|told| told.elapsed() > SWEEP);
        let is_shorter = std::fs::metadata(&self.path).is_ok_and(|it| it.len() < self.length);
        if is_due && (is_shorter || identity(&self.path) != self.file) {
            self.told = Some(Instant::now());
            tracing::error!(
                "the session file {} was moved, removed, replaced or truncated: sessions stored \
                 from now on are lost when this process restarts",
                self.path.display()
            );
        }
    }
}

struct Writer<Open> {
    opened: Opened,
    place: Place,
    open: Open,
    queue: mpsc::Receiver<Order>,
    pause: Duration,
    /// The last I/O error and when it occurred; none after a successful write.
    failed: Option<(Instant, String)>,
}

impl<Open: Fn(&Path, bool) -> Result<Database, StoreError>> Writer<Open> {
    /// Runs until the last store handle is dropped.
    fn run(mut self) {
        let mut last_sweep = now();
        while let Some(first) = self.queue.blocking_recv() {
            let (mut writes, mut replies) = (Vec::new(), Vec::new());
            let mut next = Some(first);
            while let Some(order) = next {
                match order {
                    Order::Write(write, reply) => {
                        writes.push(write);
                        replies.push(reply);
                    }
                    Order::Open(done) => {
                        self.open_if_failed();
                        let _ = done.send(());
                    }
                }
                next = match writes.len() < BATCH {
                    true => self.queue.try_recv().ok(),
                    false => None,
                };
            }
            if writes.is_empty() {
                continue;
            }
            let due = now().saturating_sub(last_sweep) > SWEEP.as_millis() as u64;
            if due {
                last_sweep = now();
            }
            match self.write(writes, due) {
                Ok(results) => {
                    for (reply, result) in replies.into_iter().zip(results) {
                        // The receiver may have stopped waiting.
                        let _ = reply.send(Ok(result));
                    }
                }
                Err(error) => {
                    for reply in replies {
                        let path = self.place.path.display();
                        let failed = format!("the session file {path} failed: {error}");
                        let _ = reply.send(Err(StoreError::new(failed)));
                    }
                }
            }
        }
    }

    fn write(&mut self, batch: Vec<Write>, sweep: bool) -> Result<Vec<Written>, String> {
        if let Some((when, why)) = &self.failed
            && when.elapsed() < self.pause
        {
            return Err(why.clone());
        }
        self.open_if_failed();
        let database = self.opened.get()?;
        self.place.tell_if_moved();
        let result = commit(&database, batch, sweep);
        drop(database);
        match result {
            Ok(written) => {
                self.failed = None;
                self.place.length = std::fs::metadata(&self.place.path).map_or(0, |it| it.len());
                Ok(written)
            }
            Err(error) => {
                let why = error.to_string();
                if is_final(&error) {
                    self.failed = Some((Instant::now(), why.clone()));
                    // So that reads work again.
                    self.open_again();
                }
                Err(why)
            }
        }
    }

    fn open_if_failed(&mut self) {
        let is_well = self.opened.get().is_ok_and(|database| {
            let sessions = database.begin_read().map_err(redb::Error::from);
            let sessions = sessions.and_then(|it| Ok(it.open_table(SESSIONS)?.len()?));
            sessions.is_ok()
        });
        if !is_well {
            self.open_again();
        }
    }

    fn open_again(&mut self) {
        let meanwhile = Err("the session file is being reopened".to_owned());
        if let Ok(old) = self.opened.replace(meanwhile) {
            // Readers hold the old database only briefly, and no new reader can get it meanwhile.
            while Arc::strong_count(&old) > 1 {
                thread::sleep(Duration::from_millis(1));
            }
        }
        // Creates no file: a new, empty one would look as if all sessions were gone.
        let opened = (self.open)(&self.place.path, false);
        self.place.file = identity(&self.place.path);
        match &opened {
            Ok(_) => tracing::warn!("the session file failed and was reopened for reading"),
            Err(error) => {
                tracing::error!("the session file failed and cannot be reopened: {error}");
            }
        }
        let opened = opened.map(Arc::new).map_err(|error| error.to_string());
        let _ = self.opened.replace(opened);
    }
}

/// Commits the whole batch or, on an error, nothing.
fn commit(
    database: &Database,
    batch: Vec<Write>,
    sweep: bool,
) -> Result<Vec<Written>, redb::Error> {
    {
        let transaction = database.begin_write()?;
        let results = {
            let mut tables = Tables {
                sessions: transaction.open_table(SESSIONS)?,
                expiries: transaction.open_table(EXPIRIES)?,
                created: transaction.open_table(CREATED)?,
                now: now(),
            };
            if sweep {
                tables.sweep()?;
            }
            batch.into_iter().map(|write| tables.apply(write)).collect::<Result<_, _>>()?
        };
        transaction.commit()?;
        Ok(results)
    }
}

struct Tables<'t> {
    sessions: Table<'t, &'static str, (u64, &'static str)>,
    expiries: Table<'t, (u64, &'static str), ()>,
    created: Table<'t, &'static str, u64>,
    now: u64,
}

impl Tables<'_> {
    fn apply(&mut self, write: Write) -> Result<Written, redb::Error> {
        match write {
            Write::Create(id, content) => {
                if let Some(taken) = self.live(&id)? {
                    return Ok(Changed::Conflict(taken));
                }
                self.put(&id, &content.data, content.expires)?;
            }
            Write::Replace(id, content, expected) => {
                if let Some(refusal) = self.refusal(&id, expected.as_deref())? {
                    return Ok(refusal);
                }
                self.put(&id, &content.data, content.expires)?;
            }
            Write::Touch(id, expires) => match self.live(&id)? {
                None => return Ok(Changed::Missing),
                Some(stored) => self.put(&id, &stored.data, expires)?,
            },
            Write::Delete(id, expected) => {
                if let Some(refusal) = self.refusal(&id, expected.as_deref())? {
                    return Ok(refusal);
                }
                if self.live(&id)?.is_none() {
                    return Ok(Changed::Missing);
                }
                self.remove(&id)?;
            }
        }
        Ok(Changed::Done)
    }

    fn live(&self, id: &str) -> Result<Option<Stored>, redb::Error> {
        let found = self.sessions.get(id)?.map(|found| stored(found.value()));
        Ok(found.filter(|stored| !is_expired(stored.expires, self.now)))
    }

    /// Returns why a write that requires `expected` cannot be done.
    fn refusal(&self, id: &str, expected: Option<&str>) -> Result<Option<Changed>, redb::Error> {
        let Some(expected) = expected else { return Ok(None) };
        Ok(match self.live(id)? {
            None => Some(Changed::Missing),
            Some(stored) if stored.data != expected => Some(Changed::Conflict(stored)),
            Some(_) => None,
        })
    }

    fn put(&mut self, id: &str, data: &str, expires: u64) -> Result<(), redb::Error> {
        let old = self.sessions.insert(id, (expires, data))?.map(|old| old.value().0);
        if let Some(old) = old {
            self.expiries.remove((old, id))?;
        }
        if old.is_none_or(|old| is_expired(Some(old), self.now)) {
            self.created.insert(id, self.now)?;
        }
        self.expiries.insert((expires, id), ())?;
        Ok(())
    }

    fn remove(&mut self, id: &str) -> Result<(), redb::Error> {
        let old = self.sessions.remove(id)?.map(|old| old.value().0);
        if let Some(old) = old {
            self.expiries.remove((old, id))?;
        }
        self.created.remove(id)?;
        Ok(())
    }

    fn sweep(&mut self) -> Result<(), redb::Error> {
        let expired = self
            .expiries
            .range(..=(self.now, "\u{10ffff}"))?
            .take(SWEPT_AT_ONCE)
            .map(|row| Ok(row?.0.value().1.to_owned()))
            .collect::<Result<Vec<String>, redb::Error>>()?;
        for id in expired {
            self.remove(&id)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(expires: u64) -> Content {
        Content { data: "{}".into(), expires }
    }

    #[tokio::test]
    async fn sessions_are_there_after_reopening() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new/sessions.redb");
        let store = FileStore::open(&path).unwrap();
        assert_eq!(store.create("a", content(NEVER - 1)).await.unwrap(), Created::Done);
        let busy = FileStore::open(&path).err().unwrap().to_string();
        assert!(busy.contains("another process has it open"), "{busy}");
        drop(store);
        // The writing thread closes the file when it notices the drop.
        let store = loop {
            match FileStore::open(&path) {
                Ok(store) => break store,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        assert!(store.load("a").await.unwrap().is_some());
    }

    #[tokio::test]
    async fn more_writes_at_once_than_fit_into_a_transaction_are_all_done() {
        let directory = tempfile::tempdir().unwrap();
        let store = FileStore::open(directory.path().join("s")).unwrap();
        let create = |at: usize| {
            let store = store.clone();
            tokio::spawn(async move { store.create(&at.to_string(), content(NEVER - 1)).await })
        };
        for created in (0..3 * BATCH).map(create).collect::<Vec<_>>() {
            assert_eq!(created.await.unwrap().unwrap(), Created::Done);
        }
        assert_eq!(store.count().await.unwrap(), 3 * BATCH as u64);
    }

    #[test]
    fn sweeping_removes_what_has_expired_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let database = open(&directory.path().join("s"), true).unwrap();
        let creations = vec![
            Write::Create("old".into(), content(1)),
            Write::Create("live".into(), content(NEVER - 1)),
            Write::Create("touched".into(), content(now() + 60_000)),
            Write::Touch("touched".into(), NEVER - 1),
        ];
        commit(&database, creations, false).unwrap();
        commit(&database, Vec::new(), true).unwrap();
        let read = database.begin_read().unwrap();
        let sessions = read.open_table(SESSIONS).unwrap();
        assert!(sessions.get("old").unwrap().is_none());
        assert!(sessions.get("live").unwrap().is_some());
        let expiries = read.open_table(EXPIRIES).unwrap();
        assert_eq!(expiries.range::<(u64, &str)>(..).unwrap().count(), 2);
    }

    #[test]
    fn a_file_of_zeros_alone_is_an_empty_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        std::fs::write(&path, vec![0; 73728]).unwrap();
        assert!(open(&path, false).is_err(), "the sessions that were there are gone");
        drop(open(&path, true).unwrap());
        open(&path, false).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_can_read_the_file() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        open(&path, true).unwrap();
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_path_that_cannot_be_opened_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let error = FileStore::open(directory.path()).err().unwrap().to_string();
        assert!(error.contains(directory.path().to_str().unwrap()), "{error}");
        let garbage = directory.path().join("garbage");
        std::fs::write(&garbage, "this is no database").unwrap();
        assert!(FileStore::open(&garbage).is_err());
    }

    /// A disk that can be full or fail.
    #[derive(Debug)]
    struct Disk {
        file: redb::backends::FileBackend,
        error: Arc<Mutex<Option<std::io::ErrorKind>>>,
    }

    impl Disk {
        fn write(&self) -> Result<(), std::io::Error> {
            self.error.lock().unwrap().map_or(Ok(()), |kind| Err(kind.into()))
        }
    }

    impl redb::StorageBackend for Disk {
        fn len(&self) -> Result<u64, std::io::Error> {
            self.file.len()
        }
        fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), std::io::Error> {
            self.file.read(offset, out)
        }
        fn set_len(&self, len: u64) -> Result<(), std::io::Error> {
            self.write()?;
            self.file.set_len(len)
        }
        fn sync_data(&self) -> Result<(), std::io::Error> {
            self.write()?;
            self.file.sync_data()
        }
        fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
            self.write()?;
            self.file.write(offset, data)
        }
    }

    #[tokio::test]
    async fn after_an_io_error_sessions_are_read_and_written_again_as_soon_as_the_disk_can() {
        use std::io::ErrorKind::{Other, QuotaExceeded, StorageFull};
        for kind in [StorageFull, QuotaExceeded, Other] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("s");
            let error = Arc::new(Mutex::new(None));
            let (of_disk, fails) =
                (error.clone(), |error: redb::Error| StoreError::new(error.to_string()));
            let open = move |path: &Path, may_begin: bool| {
                let mut options = std::fs::OpenOptions::new();
                options.read(true).write(true).create(may_begin).truncate(false);
                let file = options.open(path).map_err(|error| fails(error.into()))?;
                let file = redb::backends::FileBackend::new(file).unwrap();
                let disk = Disk { file, error: of_disk.clone() };
                let database = Database::builder().create_with_backend(disk);
                let database = database.map_err(|error| fails(error.into()))?;
                make_tables(&database).map_err(fails)?;
                Ok(database)
            };
            let store = FileStore::opened_by(path.clone(), open, Duration::ZERO).unwrap();
            assert_eq!(store.create("a", content(NEVER - 1)).await.unwrap(), Created::Done);
            *error.lock().unwrap() = Some(kind);
            for _ in 0..3 {
                store.create("b", content(NEVER - 1)).await.unwrap_err();
            }
            *error.lock().unwrap() = None;
            assert!(store.load("a").await.unwrap().is_some(), "{kind}");
            assert!(store.load("b").await.unwrap().is_none(), "{kind}");
            assert_eq!(store.create("b", content(NEVER - 1)).await.unwrap(), Created::Done);
            assert!(store.load("b").await.unwrap().is_some(), "{kind}");
            // While the file cannot be opened, no empty one replaces it.
            let aside = directory.path().join("aside");
            std::fs::rename(&path, &aside).unwrap();
            *error.lock().unwrap() = Some(kind);
            store.create("c", content(NEVER - 1)).await.unwrap_err();
            *error.lock().unwrap() = None;
            store.load("a").await.unwrap_err();
            assert!(!path.exists(), "{kind}");
            std::fs::rename(&aside, &path).unwrap();
            assert!(store.load("a").await.unwrap().is_some(), "{kind}");
        }
    }
}
