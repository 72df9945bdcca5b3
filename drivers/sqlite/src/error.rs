//! What can go wrong, whose fault it is, and what to do.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use antiphon::op::{DocumentId, OpId};
use rusqlite::ErrorCode;

/// Why a storage could not be opened, or did not do as it was told. Displayed as what happened and, where that is known,
/// after a semicolon, what to do.
#[derive(Debug)]
pub enum Error {
    /// Somebody has the directory open.
    InUse {
        /// The directory.
        directory: PathBuf,
        /// The process that has it, if it has told.
        pid: Option<u32>,
    },
    /// A file or directory can't be made, read or written.
    Inaccessible {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file in the place of the database is something else. It was not touched.
    Foreign {
        /// The file.
        file: PathBuf,
    },
    /// The database has a format of a later version. It was not touched.
    Newer {
        /// The file.
        file: PathBuf,
        /// Its format.
        version: i32,
    },
    /// The database has a format of an earlier version, and is only looked at. It was not touched.
    Older {
        /// The file.
        file: PathBuf,
        /// Its format.
        version: i32,
    },
    /// The directory was in use, but the database is gone or empty.
    Missing {
        /// The file that should be there.
        file: PathBuf,
    },
    /// The database is not what was written.
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// SQLite can't do it. Nothing has changed.
    Failed {
        /// The database's file.
        file: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// The write can't be right. Nothing has changed.
    Refused(Refusal),
}

/// Why a write was refused.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// A batch that does not go to the tail, or does in another timeline.
    WrongPosition {
        /// The document.
        document: DocumentId,
        /// Where the batch was to go.
        position: u64,
        /// The tail.
        tail: u64,
    },
    /// An op that leaves a gap in its author's, or is there already.
    NotNext {
        /// The document.
        document: DocumentId,
        /// The op.
        id: OpId,
        /// The author's next seq.
        next: u64,
    },
    /// An entry whose chain is not that of its author's bodies up to it.
    WrongChain {
        /// The document.
        document: DocumentId,
        /// The op.
        id: OpId,
    },
    /// A document is to be compacted to a position that is not above its horizon, or beyond its tail.
    WrongHorizon {
        /// The document.
        document: DocumentId,
        /// The position.
        horizon: u64,
        /// The horizon that it has.
        before: u64,
        /// The tail.
        tail: u64,
    },
    /// A piece of a snapshot that does not follow on those before, or goes beyond its end.
    WrongOffset {
        /// The document.
        document: DocumentId,
        /// Where the piece was to go.
        offset: u64,
        /// How many bytes are there.
        staged: u64,
    },
    /// A snapshot that is not whole, is not what was announced, or lacks what the document's own stands for.
    BadSnapshot {
        /// The document.
        document: DocumentId,
    },
    /// There are as many documents, or entries in the document, as the format can count.
    Uncountable {
        /// The document.
        document: DocumentId,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse { directory, pid } => {
                write!(f, "{} is in use by ", directory.display())?;
                match pid {
                    Some(pid) => write!(f, "process {pid}; end it, or use another directory"),
                    None => f.write_str("another process; end it, or use another directory"),
                }
            }
            Self::Inaccessible { path, source } => {
                let path = path.display();
                write!(f, "{path}: {source}; the directory and its files must be readable and writable by this user")
            }
            Self::Foreign { file } => {
                write!(f, "{} is not a database of antiphon; move it away, or use another directory", file.display())
            }
            Self::Newer { file, version } => {
                let (file, known) = (file.display(), crate::schema::FORMAT_VERSION);
                write!(f, "{file} has format {version}, and this version knows {known} at most; use a newer version")
            }
            Self::Older { file, version } => {
                let (file, known) = (file.display(), crate::schema::FORMAT_VERSION);
                write!(f, "{file} has format {version}, and this version reads {known}; open it once to bring it there")
            }
            Self::Missing { file } => {
                let (file, remedy) = (file.display(), "restore a backup, or start anew in an empty directory");
                write!(f, "{file} is missing or empty, though the directory was in use; {remedy}")
            }
            Self::Damaged { file, what } => {
                let (file, remedy) = (file.display(), "restore a backup, or refill an empty directory from the peers");
                write!(f, "{file} is damaged: {what}; {remedy}")
            }
            Self::Failed { file, source } => {
                let advice = match source.sqlite_error_code() {
                    Some(ErrorCode::DiskFull) => "; make room, nothing that was written before is lost",
                    Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
                        "; the directory and its files must be writable by this user"
                    }
                    Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => "; end the program that uses it",
                    Some(ErrorCode::SystemIoFailure) => "; see what is wrong with the disk, or whether it is full",
                    _ => "",
                };
                write!(f, "{}: {source}{advice}", file.display())
            }
            Self::Refused(refusal) => refusal.fmt(f),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongPosition { document, position, tail } => {
                if position == tail {
                    return write!(
                        f,
                        "{document}: a batch was refused, for its timeline is not that of position {tail}"
                    );
                }
                write!(f, "{document}: a batch for position {position} was refused, for the tail is {tail}")
            }
            Self::NotNext { document, id: OpId { author, seq }, next } => {
                write!(f, "{document}: op {seq} of {author} was refused, for its next is {next}")
            }
            Self::WrongChain { document, id: OpId { author, seq } } => {
                write!(f, "{document}: op {seq} of {author} was refused, for its chain does not fit those before it")
            }
            Self::WrongHorizon { document, horizon, before, tail } => {
                write!(
                    f,
                    "{document}: a snapshot for what is below position {horizon} was refused, for the one before is for \
                     {before}, and the tail is {tail}"
                )
            }
            Self::WrongOffset { document, offset, staged } => {
                write!(f, "{document}: a piece of a snapshot for byte {offset} was refused, for {staged} are there")
            }
            Self::BadSnapshot { document } => {
                write!(
                    f,
                    "{document}: a snapshot was refused, for it is not whole, not what was announced, or lacks what the \
                     document's own stands for; it must be taken again"
                )
            }
            Self::Uncountable { document } => {
                write!(f, "{document}: a write was refused, for the database can't count any further")
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Inaccessible { source, .. } => Some(source),
            Self::Failed { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl std::error::Error for Refusal {}

/// What goes wrong inside, where it is not known in which file.
#[derive(Debug)]
pub(crate) enum Fault {
    Sqlite(rusqlite::Error),
    Damaged(String),
    Newer(i32),
    Older(i32),
    Refused(Refusal),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl Fault {
    pub(crate) fn damaged<T>(what: impl fmt::Display) -> Result<T, Self> {
        Err(Self::Damaged(what.to_string()))
    }

    /// The error, said of the database in `file`.
    pub(crate) fn of(self, file: &Path) -> Error {
        let file = file.to_owned();
        match self {
            Self::Refused(refusal) => Error::Refused(refusal),
            Self::Damaged(what) => Error::Damaged { file, what },
            Self::Newer(version) => Error::Newer { file, version },
            Self::Older(version) => Error::Older { file, version },
            Self::Sqlite(source) => match source.sqlite_error_code() {
                // Without a code: a value of another type than the one that was written. Unknown: SQLite does not find
                // a table, or does not understand what it finds.
                None | Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown) => {
                    Error::Damaged { file, what: source.to_string() }
                }
                Some(_) => Error::Failed { file, source },
            },
        }
    }
}
