//! Traces as they are read: recordings, their segments, their events.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use bytes::{Buf, Bytes};

use crate::format::{FORMAT, HEADER_BYTES_MAX, Header, MAGIC};
use crate::recorder::Recordable;
use crate::ring;

/// Recordings that were read, each to be gone through by itself.
#[derive(Debug)]
pub struct Trace {
    /// The recordings, oldest first.
    pub runs: Vec<Run>,
    /// Segments whose beginning is not whole, with what is wrong: a kill in that moment leaves one.
    pub skipped: Vec<(String, Error)>,
}

/// One recording, or what is left of it.
#[derive(Debug)]
pub struct Run {
    segments: Vec<Segment>,
}

/// A part of a recording.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) name: String,
    pub(crate) header: Header,
    content: Content,
}

#[derive(Clone, Debug)]
enum Content {
    /// All bytes of it.
    Memory(Bytes),
    /// Read when it is needed.
    File(PathBuf),
}

/// What is wrong with a trace.
#[derive(Debug)]
pub enum Error {
    /// It can't be read.
    Unreadable(io::Error),
    /// There is no segment of a trace in the directory.
    Empty,
    /// It does not begin as a trace does.
    Foreign,
    /// It is a trace of another format than [`FORMAT`].
    Format(u16),
    /// Its header is cut off, or is not what was written.
    Header,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(error) => write!(f, "it can't be read: {error}"),
            Self::Empty => f.write_str("there is no trace in it"),
            Self::Foreign => f.write_str("it is not a trace"),
            Self::Format(format) => write!(f, "it is a trace of format {format}; this version reads format {FORMAT}"),
            Self::Header => f.write_str("its header is cut off or damaged"),
        }
    }
}

impl std::error::Error for Error {}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Unreadable(error)
    }
}

/// Why a recording can be told and drawn, but not replayed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NotReplayable {
    /// What bodies say was left out.
    Redacted,
    /// The segments before this one are missing: the ring has dropped them, or they were not given.
    NoBeginning(u64),
    /// It is of another machine.
    OtherMachine,
    /// What the machine was made of can't be read.
    Setup,
}

impl fmt::Display for NotReplayable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Redacted => f.write_str("its bodies were left out when it was recorded"),
            Self::NoBeginning(1) => f.write_str("its first segment is gone"),
            Self::NoBeginning(gone) => write!(f, "its first {gone} segments are gone"),
            Self::OtherMachine => f.write_str("it is of another machine"),
            Self::Setup => f.write_str("what the machine was made of can't be read"),
        }
    }
}

impl std::error::Error for NotReplayable {}

impl Trace {
    /// The recordings in a directory, or the segment in a file.
    ///
    /// # Errors
    /// If there is none; if it is a file that is no trace, or one of another format. In a directory, such files, and segments
    /// whose header is not whole, are [skipped](Self::skipped), if there are others.
    pub fn open(path: &Path) -> Result<Self, Error> {
        if !fs::metadata(path)?.is_dir() {
            let segment = Segment::file(path, path.display().to_string())?;
            return Ok(Self { runs: vec![Run { segments: vec![segment] }], skipped: Vec::new() });
        }
        let (mut segments, mut skipped) = (Vec::new(), Vec::new());
        for (name, _) in ring::list(path)? {
            let name = name.to_string();
            match Segment::file(&path.join(&name), name.clone()) {
                Ok(segment) => segments.push(segment),
                Err(Error::Unreadable(error)) if error.kind() == io::ErrorKind::NotFound => {} // the ring goes on
                Err(error @ Error::Unreadable(_)) => return Err(error),
                Err(error) => skipped.push((name, error)),
            }
        }
        if segments.is_empty() {
            return Err(skipped.pop().map_or(Error::Empty, |(_, error)| error));
        }
        Ok(Self { runs: Run::sort(segments), skipped })
    }

    /// The recordings in these segments.
    ///
    /// # Errors
    /// If one is no segment, or of another format.
    pub fn read(segments: impl IntoIterator<Item = Bytes>) -> Result<Self, Error> {
        let named = segments.into_iter().enumerate().map(|(index, bytes)| {
            let (header, _) = header(&mut bytes.clone())?;
            Ok(Segment { name: format!("segment {index}"), header, content: Content::Memory(bytes) })
        });
        Ok(Self { runs: Run::sort(named.collect::<Result<_, Error>>()?), skipped: Vec::new() })
    }
}

/// Takes the header from the front, and says how many bytes it had.
pub(crate) fn header(bytes: &mut Bytes) -> Result<(Header, u64), Error> {
    let all = bytes.len();
    if bytes.len() < MAGIC.len() && MAGIC.starts_with(bytes) {
        return Err(Error::Header);
    }
    if !bytes.starts_with(MAGIC) {
        return Err(Error::Foreign);
    }
    bytes.advance(MAGIC.len());
    match bytes.try_get_u16_le() {
        Ok(FORMAT) => {}
        Ok(format) => return Err(Error::Format(format)),
        Err(_) => return Err(Error::Header),
    }
    let header = Header::take(bytes).map_err(|_| Error::Header)?;
    Ok((header, (all - bytes.len()) as u64))
}

impl Segment {
    fn file(path: &Path, name: String) -> Result<Self, Error> {
        // As much as a header may take: the rest is read when it is needed.
        let mut bytes = Vec::new();
        File::open(path)?.take(HEADER_BYTES_MAX + 64).read_to_end(&mut bytes)?;
        let (header, _) = header(&mut bytes.into())?;
        Ok(Self { name, header, content: Content::File(path.to_owned()) })
    }

    pub(crate) fn bytes(&self) -> io::Result<Bytes> {
        match &self.content {
            Content::Memory(bytes) => Ok(bytes.clone()),
            Content::File(path) => fs::read(path).map(Bytes::from),
        }
    }
}

impl Run {
    fn sort(mut segments: Vec<Segment>) -> Vec<Self> {
        let key = |segment: &Segment| (segment.header.run, segment.header.began, segment.header.segment);
        segments.sort_by_key(key);
        let mut runs: Vec<Self> = Vec::new();
        for segment in segments {
            let of = |run: &&mut Self| {
                let last = run.header();
                (last.run, last.began) == (segment.header.run, segment.header.began)
            };
            match runs.last_mut().filter(of) {
                Some(run) => run.segments.push(segment),
                None => runs.push(Self { segments: vec![segment] }),
            }
        }
        runs
    }

    /// The header of its first segment that is there.
    pub fn header(&self) -> &Header {
        &self.segments[0].header // a run is made with one
    }

    /// What is there of it, in order.
    pub(crate) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// What the machine was made of.
    ///
    /// # Errors
    /// Why it can't be replayed, if so.
    pub fn setup<M: Recordable>(&self) -> Result<M::Setup, NotReplayable> {
        let header = self.header();
        if header.machine != M::NAME {
            return Err(NotReplayable::OtherMachine);
        }
        if header.redacted {
            return Err(NotReplayable::Redacted);
        }
        if header.segment > 0 {
            return Err(NotReplayable::NoBeginning(header.segment));
        }
        self.made_of::<M>().ok_or(NotReplayable::Setup)
    }

    /// What the machine was made of, whether it can be replayed or not: every segment says it.
    pub(crate) fn made_of<M: Recordable>(&self) -> Option<M::Setup> {
        crate::format::get(&self.header().setup)
    }
}
