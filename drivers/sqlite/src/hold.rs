//! Holding a directory: one process at a time, and whether it is still what its last holder left.
//!
//! The lock is the operating system's (`flock`), on a file of its own. It goes with the process, however that ends; the
//! process id in the file is for people. Beside it the file keeps *traces*: what only this database, on this machine,
//! as it was last written, has in common with them. Copying or restoring a file gives it another inode or another time
//! of change, which no program can set; so traces that fit prove that nobody has put another file in its place.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write as _};
use std::path::{Path, PathBuf};

use antiphon::op::Timeline;
use antiphon::storage::Continuity;
use antiphon::wire::Durability;

use crate::error::Error;

/// What a holder leaves behind.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Traces {
    /// It closed in order.
    closed: bool,
    /// It synced each write.
    synced: bool,
    /// That of the identity's last open.
    timeline: Option<Timeline>,
    /// Device, inode and time of change of the database's file.
    file: Option<String>,
    machine: Option<String>,
    boot: Option<String>,
}

/// The right to use a directory.
#[derive(Debug)]
pub(crate) struct Hold {
    lock: File,
    path: PathBuf,
    database: PathBuf,
    traces: Traces,
    /// Those of the last holder; `None`: there was none.
    left: Option<Traces>,
}

impl Hold {
    /// Takes the directory. Its traces stay those of the last holder until [`begin`](Self::begin).
    pub(crate) fn take(directory: &Path, path: PathBuf, database: PathBuf) -> Result<Self, Error> {
        let inaccessible = |source| Error::Inaccessible { path: path.clone(), source };
        let mut options = OpenOptions::new();
        let mut lock = options.read(true).write(true).create(true).truncate(false).open(&path).map_err(inaccessible)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let pid = read(&mut lock).ok().and_then(|text| field(&text, "pid")?.parse().ok());
                return Err(Error::InUse { directory: directory.into(), pid });
            }
            Err(TryLockError::Error(source)) => return Err(inaccessible(source)),
        }
        let text = read(&mut lock).map_err(inaccessible)?;
        let left = (!text.is_empty()).then(|| Traces::parse(&text));
        Ok(Self { lock, path, database, traces: Traces::default(), left })
    }

    /// Whether the directory was ever in use.
    pub(crate) fn was_used(&self) -> bool {
        self.left.is_some()
    }

    /// Whether the database, before it is opened, is what the last holder left there, with the identity whose last open
    /// drew `timeline`.
    pub(crate) fn fits(&self) -> impl Fn(Option<Timeline>) -> Continuity + use<> {
        let (left, file) = (self.left.clone().unwrap_or_default(), trace_of(&self.database));
        let kept = left.closed || left.synced || (left.boot.is_some() && left.boot == boot());
        let same = left.file.is_some() && left.file == file && left.machine == machine();
        move |timeline| {
            // Where there is no identity, there is nothing to continue.
            let continued = timeline.is_none() || (same && kept && left.timeline == timeline);
            if continued { Continuity::Proven } else { Continuity::Broken }
        }
    }

    /// From now on the traces are this holder's. Until an identity is written they fit none but the one of `timeline`.
    pub(crate) fn begin(&mut self, promise: Durability, timeline: Option<Timeline>) -> Result<(), Error> {
        let synced = promise == Durability::Fsync;
        let file = trace_of(&self.database);
        self.traces = Traces { closed: false, synced, timeline, file, machine: machine(), boot: boot() };
        self.store(true)
    }

    /// An identity was written.
    pub(crate) fn identified(&mut self, timeline: Timeline) -> Result<(), Error> {
        self.traces.timeline = Some(timeline);
        self.store(true)
    }

    /// Something may have been written. The file changes only when SQLite moves the write-ahead log into it.
    pub(crate) fn written(&mut self) {
        let file = trace_of(&self.database);
        if self.traces.file != file {
            self.traces.file = file;
            // If it fails, the traces won't fit, and that is the safe side.
            let _ = self.store(self.traces.synced);
        }
    }

    /// The database is closed and synced.
    pub(crate) fn close(&mut self) -> Result<(), Error> {
        self.traces.closed = true;
        self.traces.file = trace_of(&self.database);
        self.store(true)
    }

    fn store(&mut self, sync: bool) -> Result<(), Error> {
        let text = self.traces.print();
        let mut stored = self.lock.rewind().and_then(|()| self.lock.write_all(text.as_bytes()));
        if sync {
            stored = stored.and_then(|()| self.lock.sync_all());
        }
        stored.map_err(|source| Error::Inaccessible { path: self.path.clone(), source })
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // The lock is the open file's: a process that was just forked has that too, until it becomes another program.
        // If it can't be given back it goes with the last of them.
        let _ = self.lock.unlock();
    }
}

fn read(file: &mut File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.take(TEXT_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What is read of the file at most.
const TEXT_BYTES_MAX: u64 = 4096;

/// The last line: what stands below is of an earlier, longer text.
const END: &str = "end\n";

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (text, _) = text.split_once(END)?;
    text.lines().filter_map(|line| line.split_once(' ')).find(|(key, _)| *key == name).map(|(_, value)| value)
}

impl Traces {
    fn print(&self) -> String {
        let mut text = format!("pid {}\n", std::process::id());
        let yes = |yes| Some((if yes { "yes" } else { "no" }).to_owned());
        let timeline = self.timeline.map(|timeline| format!("{:016x}", timeline.0));
        let fields = [
            ("closed", yes(self.closed)),
            ("synced", yes(self.synced)),
            ("timeline", timeline),
            ("file", self.file.clone()),
            ("machine", self.machine.clone()),
            ("boot", self.boot.clone()),
        ];
        for (name, value) in fields {
            if let Some(value) = value {
                let _ = writeln!(text, "{name} {value}"); // into a string: can't fail
            }
        }
        text + END
    }

    fn parse(text: &str) -> Self {
        let owned = |name| field(text, name).map(str::to_owned);
        let timeline = field(text, "timeline").and_then(|hex| u64::from_str_radix(hex, 16).ok());
        Self {
            closed: field(text, "closed") == Some("yes"),
            synced: field(text, "synced") == Some("yes"),
            timeline: timeline.map(Timeline::new),
            file: owned("file"),
            machine: owned("machine"),
            boot: owned("boot"),
        }
    }
}

#[cfg(unix)]
fn trace_of(path: &Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::metadata(path).ok()?;
    let (device, inode) = (metadata.dev(), metadata.ino());
    Some(format!("{device}:{inode} {}.{:09}", metadata.ctime(), metadata.ctime_nsec()))
}

/// Other systems have nothing that tells a file from a copy: there, each restart renews the replica.
#[cfg(not(unix))]
fn trace_of(_: &Path) -> Option<String> {
    None
}

fn first_line(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().next().map(str::to_owned).filter(|line| !line.is_empty())
}

/// What tells this machine from others, where that is known.
fn machine() -> Option<String> {
    first_line("/etc/machine-id")
}

/// What tells this start of the machine from others, where that is known.
fn boot() -> Option<String> {
    first_line("/proc/sys/kernel/random/boot_id")
}
