//! Files that are read again when they have changed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::time::{MissedTickBehavior, interval};

/// How often it is looked whether files have changed.
pub(crate) const FILES_POLL: Duration = Duration::from_secs(1);
/// The longest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Differs when a file may have been written or replaced. `None` when it cannot be seen.
type Stamp = Option<(u64, u64, i128)>;

/// Makes something of files.
type Read<T> = Box<dyn Fn(&[PathBuf]) -> Result<T, String> + Send + Sync>;

/// What some files say, as they are now. When they are changed to something that cannot be used, it stays what it was.
pub(crate) struct Reloaded<T> {
    what: &'static str,
    paths: Vec<PathBuf>,
    read: Read<T>,
    current: ArcSwap<T>,
    // Held to compare or to set. As the files were before they were last read.
    stamps: Mutex<Vec<Stamp>>,
}

impl<T: Send + Sync + 'static> Reloaded<T> {
    /// Reads the files. `what` names what they are, in the log.
    pub(crate) fn open(
        what: &'static str,
        paths: Vec<PathBuf>,
        read: impl Fn(&[PathBuf]) -> Result<T, String> + Send + Sync + 'static,
    ) -> Result<Arc<Self>, String> {
        let stamps = stamps(&paths);
        let current = ArcSwap::from_pointee(read(&paths)?);
        Ok(Arc::new(Self { what, paths, read: Box::new(read), current, stamps: Mutex::new(stamps) }))
    }

    pub(crate) fn current(&self) -> Arc<T> {
        self.current.load_full()
    }

    /// Reads the files again if they have changed; says whether there is something new. Reads files: not for a thread that
    /// others wait for.
    pub(crate) fn look(&self) -> Result<bool, String> {
        let now = stamps(&self.paths);
        if *self.stamps.lock() == now {
            return Ok(false);
        }
        // Before the files are read: what is written meanwhile is a later change.
        *self.stamps.lock() = now;
        self.current.store(Arc::new((self.read)(&self.paths)?));
        Ok(true)
    }

    /// Looks at the files now and then. Never returns; may be dropped at any time.
    pub(crate) async fn watch(self: &Arc<Self>) {
        let mut polls = interval(FILES_POLL);
        polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            polls.tick().await;
            let this = Arc::clone(self);
            // A disk may make us wait, and a runtime must not.
            let looked = tokio::task::spawn_blocking(move || this.look()).await;
            let (what, paths) = (self.what, &self.paths);
            match looked {
                Ok(Ok(false)) => {}
                Ok(Ok(true)) => tracing::info!(?paths, "{what} were read again"),
                Ok(Err(error)) => {
                    tracing::warn!(?paths, %error, "{what} have changed and cannot be used: the old ones stay")
                }
                Err(error) => tracing::error!(?paths, %error, "looking at {what} failed"),
            }
        }
    }
}

impl<T> std::fmt::Debug for Reloaded<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reloaded").field("paths", &self.paths).finish_non_exhaustive()
    }
}

/// Reads a file that is not long.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, String> {
    let told = |error: std::io::Error| format!("`{}` cannot be read: {error}", path.display());
    let length = std::fs::metadata(path).map_err(told)?.len();
    if length > FILE_BYTES_MAX {
        return Err(format!("`{}` has {length} bytes, and at most {FILE_BYTES_MAX} are read", path.display()));
    }
    std::fs::read(path).map_err(told)
}

fn stamps(paths: &[PathBuf]) -> Vec<Stamp> {
    paths.iter().map(|path| std::fs::metadata(path).ok().map(|file| stamp(&file))).collect()
}

#[cfg(unix)]
fn stamp(file: &std::fs::Metadata) -> (u64, u64, i128) {
    use std::os::unix::fs::MetadataExt;
    (file.ino(), file.len(), i128::from(file.ctime()) * 1_000_000_000 + i128::from(file.ctime_nsec()))
}

#[cfg(not(unix))]
fn stamp(file: &std::fs::Metadata) -> (u64, u64, i128) {
    let written = file.modified().ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    (0, file.len(), written.map_or(0, |since| i128::try_from(since.as_nanos()).unwrap_or(i128::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_changed_is_read_again_and_what_cannot_be_used_changes_nothing() {
        let path = std::env::temp_dir().join(format!("edri-reloaded-{}", std::process::id()));
        let write = |text: &str| {
            // Put in its place whole, and a file of its own: its stamp differs however fast this is.
            let next = path.with_extension("next");
            std::fs::write(&next, text).expect("is written");
            std::fs::rename(next, &path).expect("is moved");
        };
        write("1");
        let number = |paths: &[PathBuf]| {
            let text = read(&paths[0])?;
            String::from_utf8_lossy(&text).parse::<u32>().map_err(|error| error.to_string())
        };
        let reloaded = Reloaded::open("a number", vec![path.clone()], number).expect("is read");
        assert_eq!((reloaded.look(), *reloaded.current()), (Ok(false), 1));
        write("2");
        assert_eq!((reloaded.look(), *reloaded.current()), (Ok(true), 2));
        write("two");
        assert!(reloaded.look().is_err());
        assert_eq!((reloaded.look(), *reloaded.current()), (Ok(false), 2), "said once, and the old one stays");
        std::fs::remove_file(&path).expect("is removed");
        assert!(reloaded.look().is_err());
        assert_eq!(*reloaded.current(), 2);
        write("3");
        assert_eq!((reloaded.look(), *reloaded.current()), (Ok(true), 3));
        std::fs::remove_file(&path).expect("is removed");
    }
}
