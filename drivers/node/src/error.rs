//! What can go wrong, and whose fault it is.

use std::fmt;

use antiphon::codes::{Code, Retry};
use antiphon::op::DocumentId;
use antiphon::replica::Misuse;
use antiphon::session::{By, Ending};

use crate::transport::ConnectError;

/// What a node, or something that was waited for, came to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Error {
    /// The caller broke a rule.
    Misuse(Misuse),
    /// The node has stopped, or is shutting down.
    Stopped,
    /// The storage failed. Reads can be tried again; a document that could not be written is, by itself, with backoff.
    Storage {
        /// The document, if it was about one.
        document: Option<DocumentId>,
        /// What the storage said.
        reason: String,
    },
    /// The storage failed, works again, and did not keep these appends. Everybody who waits for the document, or
    /// appends to it, is told, until the app takes them back with [`Node::take_lost`](crate::Node::take_lost).
    Lost {
        /// The document.
        document: DocumentId,
        /// How many.
        appends: u64,
    },
    /// The document is closed on the link, and trying again won't help.
    Closed {
        /// The document.
        document: DocumentId,
        /// Why.
        code: Code,
        /// Why, for people.
        reason: String,
        /// Who said so.
        by: By,
    },
    /// Authors of the document have different histories at both ends of the link, and no authority mends that.
    Forked {
        /// The document.
        document: DocumentId,
    },
    /// The replica can't be recorded where its configuration says.
    Recording(String),
    /// The link is over for good.
    Link(LinkEnd),
}

/// Why a link is over for good.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LinkEnd {
    /// The app disconnected it.
    Disconnected,
    /// The node has stopped.
    Stopped,
    /// There is no connection, and trying again won't help.
    Connect(ConnectError),
    /// A session ended with a code that says to try never again.
    Session(Ending),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Misuse(misuse) => misuse.fmt(f),
            Self::Stopped => f.write_str("the node has stopped: start it again"),
            Self::Storage { document: Some(document), reason } => {
                write!(f, "the storage failed for {document}, and is tried again: {reason}")
            }
            Self::Storage { document: None, reason } => write!(f, "the storage failed: {reason}"),
            Self::Lost { document, appends } => {
                write!(
                    f,
                    "the storage failed, and did not keep {appends} ops appended to {document}: take them back, and append them again"
                )
            }
            Self::Closed { document, code, reason, by } => {
                let who = if *by == By::Us { "this end" } else { "the peer" };
                write!(f, "{who} closed {document}: {reason} ({code})")
            }
            Self::Forked { document } => {
                write!(f, "authors of {document} have different histories at both ends: reset it from one of them")
            }
            Self::Recording(reason) => f.write_str(reason),
            Self::Link(end) => end.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

impl From<Misuse> for Error {
    fn from(misuse: Misuse) -> Self {
        Self::Misuse(misuse)
    }
}

impl fmt::Display for LinkEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disconnected => f.write_str("the link was disconnected"),
            Self::Stopped => f.write_str("the node has stopped"),
            Self::Connect(error) => error.fmt(f),
            Self::Session(Ending { code, reason, by, .. }) => {
                let who = if *by == By::Us { "this end" } else { "the peer" };
                write!(f, "{who} ended the session for good: {reason} ({code})")
            }
        }
    }
}

impl Error {
    /// Whether the same may work later, with nothing changed.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Storage { .. } => Retry::Later,
            Self::Misuse(Misuse::Full(_)) => Retry::Later,
            _ => Retry::Never,
        }
    }
}
