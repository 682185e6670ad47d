//! The directory that keeps compiled code between starts.

use std::fs::{self, DirBuilder, Metadata, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Mode bits that let other users change an entry. Cached code is executed, so they are refused.
const OTHERS_WRITE: u32 = 0o022;
const OTHERS: u32 = 0o077;
const STICKY: u32 = 0o1000;

/// A directory for compiled code that no other user can write to. The code in it is executed.
///
/// [`Self::open`] checks this as OpenSSH does for its keys (`StrictModes`): the directory, with
/// symbolic links resolved, and each of its parents up to the root belong to the current user or to
/// root, and no other user or group may write to them. More lenient than OpenSSH, it accepts a
/// world-writable parent with the sticky bit, such as `/tmp`, where other users cannot remove or
/// rename our entries. It also checks the directory's existing content, which may date from when
/// others could write to it.
#[derive(Clone, Debug)]
pub struct CodeCache(PathBuf);

/// Why a directory cannot be used for compiled code.
#[derive(Debug, thiserror::Error)]
#[error("compiled code cannot be cached in {}: {reason}", .directory.display())]
pub struct CodeCacheError {
    directory: PathBuf,
    reason: String,
}

impl CodeCache {
    /// Opens a directory dedicated to compiled code, by its absolute path. Creates it and its
    /// parents if they are missing, and makes it private (0700).
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, CodeCacheError> {
        let directory = directory.as_ref();
        prepare(directory)
            .map(Self)
            .map_err(|reason| CodeCacheError { directory: directory.to_owned(), reason })
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.0
    }
}

/// Creates the directory, checks it, and returns its path with symbolic links resolved.
fn prepare(directory: &Path) -> Result<PathBuf, String> {
    if !directory.is_absolute() {
        return Err("the path is not absolute".to_owned());
    }
    // Check first: even an empty directory must not be created where another user has control.
    let existing = directory.ancestors().find_map(|ancestor| fs::canonicalize(ancestor).ok());
    check_parents(&existing.ok_or("the path does not exist")?)?;
    match DirBuilder::new().recursive(true).mode(0o700).create(directory) {
        Ok(()) => {}
        Err(error) => return Err(format!("it cannot be created: {error}")),
    }
    let directory = fs::canonicalize(directory).map_err(|error| error.to_string())?;
    let metadata = look_at(&directory)?;
    check_mode(&directory, &metadata)?;
    check_parents(&directory)?;
    let is_closed = metadata.mode() & OTHERS == 0;
    check_content(&directory, is_closed)?;
    if !is_closed && metadata.uid() == own_user() {
        let closed = fs::set_permissions(&directory, Permissions::from_mode(0o700));
        closed.map_err(|error| format!("its permissions cannot be restricted: {error}"))?;
    }
    Ok(directory)
}

/// Checks the owner and the mode of a directory, whose path has no symbolic links, and of all its
/// parents.
fn check_parents(directory: &Path) -> Result<(), String> {
    for path in directory.ancestors() {
        let metadata = look_at(path)?;
        if !metadata.is_dir() {
            return Err(format!("{} is not a directory", path.display()));
        }
        check_owner(path, &metadata)?;
        // With the sticky bit, others cannot replace an entry that belongs to us or to root.
        if metadata.mode() & STICKY == 0 {
            check_mode(path, &metadata)?;
        }
    }
    Ok(())
}

/// Checks everything in a directory; modes only if the directory is not closed to other users.
fn check_content(directory: &Path, is_closed: bool) -> Result<(), String> {
    let wrong = |error: std::io::Error| format!("{}: {error}", directory.display());
    for entry in fs::read_dir(directory).map_err(wrong)? {
        let path = entry.map_err(wrong)?.path();
        let metadata = match fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            // Another process is cleaning up.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(format!("{}: {error}", path.display())),
        };
        check_owner(&path, &metadata)?;
        if metadata.is_symlink() {
            return Err(format!("{} is a symbolic link: remove it", path.display()));
        }
        if !is_closed {
            check_mode(&path, &metadata)?;
        }
        if metadata.is_dir() {
            check_content(&path, is_closed)?;
        }
    }
    Ok(())
}

fn check_owner(path: &Path, metadata: &Metadata) -> Result<(), String> {
    let owner = metadata.uid();
    if owner == 0 || owner == own_user() {
        return Ok(());
    }
    Err(format!("{} belongs to another user (uid {owner})", path.display()))
}

fn check_mode(path: &Path, metadata: &Metadata) -> Result<(), String> {
    let mode = metadata.mode() & 0o7777;
    if mode & OTHERS_WRITE == 0 {
        return Ok(());
    }
    let path = path.display();
    Err(format!(
        "{path} is writable by others (mode {mode:04o}): run `chmod go-w {path}`, then remove the \
         directory of compiled code, since others may have written to it"
    ))
}

fn look_at(path: &Path) -> Result<Metadata, String> {
    fs::symlink_metadata(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn own_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{chown, symlink};

    use tempfile::TempDir;

    use super::*;

    /// Returns a suitable parent directory and the path of a cache to be created in it.
    fn place() -> (TempDir, PathBuf) {
        let place = tempfile::tempdir().unwrap();
        let cache = place.path().join("edge-session/compiled");
        (place, cache)
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[track_caller]
    fn refused(cache: &Path, why: &str) {
        let error = CodeCache::open(cache).unwrap_err().to_string();
        assert!(error.contains(why) && error.contains(cache.to_str().unwrap()), "{error}");
    }

    #[test]
    fn what_is_made_is_closed_to_others_and_used_again() {
        let (place, cache) = place();
        for _ in 0..2 {
            CodeCache::open(&cache).unwrap();
            assert_eq!((mode(&cache), mode(&place.path().join("edge-session"))), (0o700, 0o700));
            fs::write(cache.join("code"), "").unwrap();
        }
    }

    #[test]
    fn one_that_others_can_only_read_is_closed() {
        let (_place, cache) = place();
        fs::create_dir_all(cache.join("modules")).unwrap();
        for directory in [cache.join("modules"), cache.clone(), cache.parent().unwrap().into()] {
            set_mode(&directory, 0o755);
        }
        CodeCache::open(&cache).unwrap();
        assert_eq!((mode(&cache), mode(cache.parent().unwrap())), (0o700, 0o755));
    }

    #[test]
    fn one_that_others_may_write_to_is_refused_at_each_level() {
        for bits in [0o020, 0o002] {
            for level in 0..3 {
                let (_place, cache) = place();
                fs::create_dir_all(&cache).unwrap();
                let open = cache.ancestors().nth(level).unwrap();
                set_mode(open, 0o700 | bits);
                refused(&cache, "is writable by others");
                set_mode(open, 0o700);
                CodeCache::open(&cache).unwrap();
            }
        }
    }

    #[test]
    fn nothing_is_made_below_a_directory_that_others_may_write_to() {
        let (place, cache) = place();
        set_mode(place.path(), 0o777);
        refused(&cache, "is writable by others");
        assert!(!place.path().join("edge-session").exists());
    }

    #[test]
    fn a_parent_with_the_sticky_bit_keeps_what_is_ours() {
        let (place, cache) = place();
        set_mode(place.path(), 0o1777);
        CodeCache::open(&cache).unwrap();
        // The sticky bit prevents renaming but not writing into the directory.
        set_mode(&cache, 0o1777);
        refused(&cache, "is writable by others");
    }

    #[test]
    fn files_that_others_could_write_to_are_refused_unless_the_directory_was_closed() {
        for name in ["modules/code", "modules"] {
            let (_place, cache) = place();
            fs::create_dir_all(cache.join("modules")).unwrap();
            fs::write(cache.join("modules/code"), "").unwrap();
            set_mode(&cache.join("modules/code"), 0o644);
            set_mode(&cache.join("modules"), 0o755);
            set_mode(&cache.join(name), 0o777);
            set_mode(&cache, 0o755);
            refused(&cache, name);
            set_mode(&cache, 0o700);
            CodeCache::open(&cache).unwrap();
        }
    }

    #[test]
    fn a_symbolic_link_leads_to_where_it_is_checked() {
        let (place, cache) = place();
        let (target, open) = (place.path().join("target"), place.path().join("open"));
        fs::create_dir_all(&target).unwrap();
        fs::create_dir_all(open.join("compiled")).unwrap();
        set_mode(&open, 0o777);
        fs::create_dir_all(cache.parent().unwrap()).unwrap();
        symlink(&target, &cache).unwrap();
        let opened = CodeCache::open(&cache).unwrap();
        assert_eq!(opened.directory(), fs::canonicalize(&target).unwrap());
        fs::remove_file(&cache).unwrap();
        symlink(open.join("compiled"), &cache).unwrap();
        refused(&cache, "is writable by others");
        fs::remove_file(&cache).unwrap();
        symlink(place.path().join("nowhere"), &cache).unwrap();
        refused(&cache, "cannot be created");
        // A symbolic link inside the directory is refused, too.
        fs::remove_file(&cache).unwrap();
        symlink("/etc/passwd", target.join("code")).unwrap();
        refused(&target, "is a symbolic link");
    }

    #[test]
    fn what_is_no_directory_or_nowhere_is_refused() {
        let (place, _) = place();
        let file = place.path().join("file");
        fs::write(&file, "").unwrap();
        refused(&file, "is not a directory");
        refused(&file.join("below"), "is not a directory");
        refused(Path::new("relative"), "is not absolute");
    }

    #[test]
    fn what_belongs_to_somebody_else_is_refused() {
        // Only root can change a file's owner; other users can test only with files that root owns.
        let is_root = own_user() == 0;
        for name in ["edge-session", "edge-session/compiled", "edge-session/compiled/code"] {
            let (place, cache) = place();
            fs::create_dir_all(&cache).unwrap();
            fs::write(cache.join("code"), "").unwrap();
            let given = chown(place.path().join(name), Some(4321), None);
            match is_root {
                true => refused(&cache, "belongs to another user (uid 4321)"),
                false => assert!(given.is_err()),
            }
        }
    }
}
