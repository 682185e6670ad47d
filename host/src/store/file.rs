//! `file:PATH` — sessions in one file, for one process: embedded and durable.
//!
//! Reads go to the database directly. Writes go through one thread that puts all that
//! are waiting into one transaction, so that one fsync serves many requests.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use redb::{
    Database, ReadableDatabase, ReadableTable, ReadableTableMetadata as _, Table, TableDefinition,
};
use tokio::sync::{mpsc, oneshot};

use super::{
    Browse, Changed, Content, Created, Entry, Page, Store, StoreError, Stored, digest, is_expired,
    now,
};

/// Identifier → (expiry, text). No expiry is [`NEVER`].
const SESSIONS: TableDefinition<'_, &str, (u64, &str)> = TableDefinition::new("sessions");

/// (Expiry, identifier), so that expired sessions are found without reading all.
const EXPIRIES: TableDefinition<'_, (u64, &str), ()> = TableDefinition::new("expiries");

/// Identifier → when the session was created.
const CREATED: TableDefinition<'_, &str, u64> = TableDefinition::new("created");

const NEVER: u64 = u64::MAX;

/// Waiting writes that one transaction takes.
const BATCH: usize = 512;

/// How often expired sessions are deleted, and how many at most in one transaction.
const SWEEP: Duration = Duration::from_secs(60);
const SWEPT_AT_ONCE: usize = 10_000;

/// How many sessions are looked at, at once.
const PAGE: usize = 1000;

/// Sessions in the file of an embedded database. What was answered survives a crash of
/// the process and of the machine. Cheap to clone.
#[derive(Clone)]
pub struct FileStore {
    database: Arc<Database>,
    writes: mpsc::Sender<(Write, oneshot::Sender<Result<Written, StoreError>>)>,
}

enum Write {
    Create(String, Content),
    Replace(String, Content, Option<String>),
    Touch(String, u64),
    Delete(String, Option<String>),
}

/// What became of a write: of a creation, [`Changed::Conflict`] is [`Created::Taken`].
type Written = Changed;

impl FileStore {
    /// Open the database in the file `path`; it is made if it is missing, its directory too.
    /// Only one process at a time can have it open.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref();
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).map_err(|error| {
                let message = format!("cannot make the directory {}: {error}", directory.display());
                StoreError::new(message).caused_by(error)
            })?;
        }
        let database = Arc::new(open(path)?);
        let (writes, queue) = mpsc::channel(4 * BATCH);
        let writer = Writer { database: database.clone(), queue };
        thread::Builder::new()
            .name("edge-session-file".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| StoreError::new("cannot start the writing thread").caused_by(error))?;
        Ok(Self { database, writes })
    }

    /// Read from the database, which may wait for the disk.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Database) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, StoreError> {
        let database = self.database.clone();
        let reading = tokio::task::spawn_blocking(move || read(&database));
        let result =
            reading.await.map_err(|error| StoreError::new("reading stopped").caused_by(error))?;
        result.map_err(unusable)
    }

    async fn write(&self, write: Write) -> Result<Written, StoreError> {
        let (reply, answer) = oneshot::channel();
        let stopped = || StoreError::new("the file store's writing thread has stopped");
        self.writes.send((write, reply)).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }
}

/// A file of a database, readable by its owner only: session data is private.
fn open(path: &Path) -> Result<Database, StoreError> {
    let shown: PathBuf = path.to_owned();
    let failed = |reason: String| {
        StoreError::new(format!("cannot open the session file {}: {reason}", shown.display()))
    };
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path).map_err(|error| failed(error.to_string()))?;
    let backend = redb::backends::FileBackend::new(file);
    let opened = backend.and_then(|backend| Database::builder().create_with_backend(backend));
    let database = opened.map_err(|error| match error {
        redb::DatabaseError::DatabaseAlreadyOpen => failed(
            "another process has it open. Stop that one, or give this one another file".into(),
        ),
        error => failed(error.to_string()),
    })?;
    // Make the tables, so that reading never meets a database without them.
    let make = || -> Result<(), redb::Error> {
        let transaction = database.begin_write()?;
        transaction.open_table(SESSIONS)?;
        transaction.open_table(EXPIRIES)?;
        transaction.open_table(CREATED)?;
        Ok(transaction.commit()?)
    };
    make().map_err(|error| failed(error.to_string()))?;
    Ok(database)
}

fn unusable(error: impl Into<redb::Error>) -> StoreError {
    let error = error.into();
    StoreError::new(format!("the session file failed: {error}")).caused_by(error)
}

#[async_trait]
impl Store for FileStore {
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

struct Writer {
    database: Arc<Database>,
    queue: mpsc::Receiver<(Write, oneshot::Sender<Result<Written, StoreError>>)>,
}

impl Writer {
    /// Until the last store handle is gone.
    fn run(mut self) {
        let mut last_sweep = now();
        while let Some(first) = self.queue.blocking_recv() {
            let mut batch = vec![first];
            while batch.len() < BATCH {
                match self.queue.try_recv() {
                    Ok(next) => batch.push(next),
                    Err(_) => break,
                }
            }
            let due = now().saturating_sub(last_sweep) > SWEEP.as_millis() as u64;
            if due {
                last_sweep = now();
            }
            let (writes, replies): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
            match self.commit(writes, due) {
                Ok(results) => {
                    for (reply, result) in replies.into_iter().zip(results) {
                        // Who has stopped waiting is told nothing.
                        let _ = reply.send(Ok(result));
                    }
                }
                Err(error) => {
                    let error = error.to_string();
                    for reply in replies {
                        let failed = format!("the session file failed: {error}");
                        let _ = reply.send(Err(StoreError::new(failed)));
                    }
                }
            }
        }
    }

    /// All of the batch, or, on an error, nothing of it.
    fn commit(&self, batch: Vec<Write>, sweep: bool) -> Result<Vec<Written>, redb::Error> {
        let transaction = self.database.begin_write()?;
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

    /// Why a write that demands `expected` cannot be done.
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
        // The writing thread closes the file when it notices.
        let store = loop {
            match FileStore::open(&path) {
                Ok(store) => break store,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        assert!(store.load("a").await.unwrap().is_some());
    }

    #[test]
    fn sweeping_removes_what_has_expired_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let database = Arc::new(open(&directory.path().join("s")).unwrap());
        let (_keep, queue) = mpsc::channel(1);
        let writer = Writer { database: database.clone(), queue };
        let creations = vec![
            Write::Create("old".into(), content(1)),
            Write::Create("live".into(), content(NEVER - 1)),
            Write::Create("touched".into(), content(now() + 60_000)),
            Write::Touch("touched".into(), NEVER - 1),
        ];
        writer.commit(creations, false).unwrap();
        writer.commit(Vec::new(), true).unwrap();
        let read = database.begin_read().unwrap();
        let sessions = read.open_table(SESSIONS).unwrap();
        assert!(sessions.get("old").unwrap().is_none());
        assert!(sessions.get("live").unwrap().is_some());
        let expiries = read.open_table(EXPIRIES).unwrap();
        assert_eq!(expiries.range::<(u64, &str)>(..).unwrap().count(), 2);
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_can_read_the_file() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        open(&path).unwrap();
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
}
