//! A ring of files: what is recorded goes to the end, and what is oldest goes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::sink::{Piece, Pieces, Sink};

/// How the files of a ring end.
pub const SUFFIX: &str = "trace";

/// How much a ring keeps unless something else is said.
pub const BYTES_DEFAULT: u64 = 256 << 20;
/// The smallest ring.
pub const BYTES_MIN: u64 = 1 << 20;
/// Segments of a full ring: what is dropped at a time is one of them.
const SEGMENTS: u64 = 16;
/// Files in a ring, whatever their size.
const FILES_MAX: usize = 1024;
/// How long records gather before they are written: what a kill can take away, beside what is being written.
const GATHER: Duration = Duration::from_millis(20);
/// Bytes that are not left waiting for more.
const GATHER_BYTES: usize = 1 << 20;
/// Bytes that wait for a disk that does not keep up. Beyond, the recording gives up.
const WAITING_BYTES_MAX: usize = 64 << 20;
/// How long the end of a recording waits for the disk.
const FLUSH_DEADLINE: Duration = Duration::from_secs(5);

/// A directory with recordings, each in segments, of which the oldest are dropped when they become too many.
///
/// Several recordings may follow each other in a directory; it is for one process at a time.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ring {
    /// The directory. It is made where it is missing.
    pub directory: PathBuf,
    /// Bytes of all segments together; the last may go beyond by one record. At least [`BYTES_MIN`]; default
    /// [`BYTES_DEFAULT`]. There are never more than 1,024 files.
    pub bytes: u64,
    /// Leaves out what bodies say: see [`Options::redacted`](crate::Options::redacted).
    pub redacted: bool,
}

impl Ring {
    /// A ring in this directory, with the defaults of everything.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), bytes: BYTES_DEFAULT, redacted: false }
    }

    /// Begins another recording.
    ///
    /// # Errors
    /// If the directory can't be made, read or written.
    pub fn open(&self) -> io::Result<Files> {
        fs::create_dir_all(&self.directory)?;
        let newest = list(&self.directory)?.last().map_or(0, |(name, _)| name.run);
        let mut name = Name { run: newest + 1, segment: 0 };
        // Whoever was faster keeps its number.
        let file = loop {
            match create(&self.directory.join(name.to_string())) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => name.run += 1,
                outcome => break outcome?,
            }
        };
        let bytes = self.bytes.max(BYTES_MIN);
        let shared = Arc::new(Shared::default());
        let disk =
            Disk { directory: self.directory.clone(), bytes, segment_bytes: bytes / SEGMENTS, name, file, fresh: true };
        let thread = thread::Builder::new().name("antiphon-recorder".into());
        thread.spawn({
            let shared = shared.clone();
            move || disk.work(&shared)
        })?;
        Ok(Files { shared, run: name.run, segment_bytes: bytes / SEGMENTS })
    }
}

/// One recording in a [`Ring`]. A thread of its own writes it.
#[derive(Debug)]
pub struct Files {
    shared: Arc<Shared>,
    run: u64,
    segment_bytes: u64,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// The thread has something to do.
    work: Condvar,
    /// The thread has done everything.
    done: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    pieces: Pieces,
    /// The thread waits for something to do.
    idle: bool,
    /// Somebody waits for the thread.
    urgent: bool,
    over: bool,
    failure: Option<String>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, push: impl FnOnce(&mut Pieces)) {
        let mut queue = self.lock();
        if queue.failure.is_some() {
            return;
        }
        push(&mut queue.pieces);
        if queue.pieces.bytes > WAITING_BYTES_MAX {
            queue.pieces.take();
            queue.failure = Some(String::from("the disk does not keep up"));
        }
        if queue.idle || queue.pieces.bytes > GATHER_BYTES {
            drop(queue);
            self.work.notify_one();
        }
    }
}

impl Sink for Files {
    fn run(&self) -> u64 {
        self.run
    }

    fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    fn begin(&mut self, header: Vec<u8>) {
        self.shared.push(|pieces| pieces.segment(header));
    }

    fn append(&mut self, record: [&[u8]; 3]) {
        self.shared.push(|pieces| pieces.record(record));
    }

    fn flush(&mut self) {
        let mut queue = self.shared.lock();
        queue.urgent = true;
        self.shared.work.notify_one();
        let unfinished = |queue: &mut Queue| (!queue.pieces.is_empty() || !queue.idle) && queue.failure.is_none();
        let waited = self.shared.done.wait_timeout_while(queue, FLUSH_DEADLINE, unfinished);
        waited.unwrap_or_else(PoisonError::into_inner).0.urgent = false;
    }

    fn failure(&self) -> Option<String> {
        self.shared.lock().failure.clone()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        self.shared.lock().over = true;
        self.shared.work.notify_one();
    }
}

// -------------------------------------------------------------------------------------------- the thread

/// The directory as the thread has it.
struct Disk {
    directory: PathBuf,
    bytes: u64,
    segment_bytes: u64,
    /// The segment that is being written.
    name: Name,
    file: File,
    /// Nothing was written into it.
    fresh: bool,
}

impl Disk {
    fn work(mut self, shared: &Shared) {
        let waits = |queue: &mut Queue| queue.pieces.is_empty() && !queue.over;
        let gathers = |queue: &mut Queue| !queue.urgent && !queue.over && queue.pieces.bytes < GATHER_BYTES;
        let mut queue = shared.lock();
        loop {
            queue.idle = true;
            shared.done.notify_all();
            queue = shared.work.wait_while(queue, waits).unwrap_or_else(PoisonError::into_inner);
            queue.idle = false;
            let gathered = shared.work.wait_timeout_while(queue, GATHER, gathers);
            queue = gathered.unwrap_or_else(PoisonError::into_inner).0;
            let pieces = queue.pieces.take();
            if pieces.is_empty() && queue.over {
                return;
            }
            drop(queue);
            let mut spare = Vec::new();
            let written: io::Result<()> = pieces.into_iter().try_for_each(|piece| {
                self.write(&piece)?;
                if let Piece::Records(records) = piece {
                    spare = records;
                }
                Ok(())
            });
            queue = shared.lock();
            queue.pieces.reuse(spare);
            if let Err(error) = written {
                queue.failure = Some(format!("{} can't be written: {error}", self.directory.display()));
                queue.pieces.take();
                shared.done.notify_all();
                return;
            }
        }
    }

    fn write(&mut self, piece: &Piece) -> io::Result<()> {
        match piece {
            Piece::Records(records) => self.file.write_all(records),
            Piece::Segment(header) => {
                if !std::mem::take(&mut self.fresh) {
                    self.name.segment += 1;
                    self.file = create(&self.directory.join(self.name.to_string()))?;
                }
                self.file.write_all(header)?;
                self.drop_oldest()
            }
        }
    }

    /// Makes room for the segment that has begun.
    fn drop_oldest(&self) -> io::Result<()> {
        let files = list(&self.directory)?;
        let mut bytes: u64 = files.iter().map(|(_, bytes)| bytes).sum::<u64>() + self.segment_bytes;
        let mut count = files.len();
        for (name, size) in files {
            if (bytes <= self.bytes && count <= FILES_MAX) || name == self.name {
                break;
            }
            match fs::remove_file(self.directory.join(name.to_string())) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => (bytes, count) = (bytes - size, count - 1),
            }
        }
        Ok(())
    }
}

/// A file that nobody else reads: bodies are in it.
fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// The name of a segment's file. In their order, they are what was recorded.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Name {
    pub(crate) run: u64,
    pub(crate) segment: u64,
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:08}-{:08}.{SUFFIX}", self.run, self.segment)
    }
}

impl Name {
    fn parse(name: &str) -> Option<Self> {
        let (run, segment) = name.strip_suffix(SUFFIX)?.strip_suffix('.')?.split_once('-')?;
        let number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?;
        let name = Self { run: number(run)?, segment: number(segment)? };
        Some(name)
    }
}

/// The segments in a directory, oldest first, with their sizes. What is called otherwise is nobody's concern.
pub(crate) fn list(directory: &Path) -> io::Result<Vec<(Name, u64)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let Some(name) = entry.file_name().to_str().and_then(Name::parse) else { continue };
        match entry.metadata() {
            Ok(metadata) if metadata.is_file() => files.push((name, metadata.len())),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    files.sort_unstable();
    Ok(files)
}
