//! Every code that ends or refuses something, in one table: condition, whose fault, and when to try again.

use core::fmt;

use serde::{Deserialize, Serialize};

/// Why a session or a document was refused or closed. Unknown codes are kept as they are, so that versions can mix.
#[derive(Clone, Copy, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Code(pub u16);

/// Whose fault it is, seen from the end that states the code.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Fault {
    /// Nobody's: it happens in the best of networks.
    Nobody,
    /// The end that states the code.
    Sender,
    /// The other end, the one that reads the code.
    Peer,
}

/// Whether trying again can help, and when.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Retry {
    /// At once.
    Now,
    /// With backoff, or after the hint that came with the code.
    Later,
    /// Only after something was changed: a token, a version, a limit, a program.
    Never,
}

/// One row of the table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Row {
    /// The code.
    pub code: Code,
    /// Its name.
    pub name: &'static str,
    /// When it is stated.
    pub condition: &'static str,
    /// Whose fault it is.
    pub fault: Fault,
    /// Whether to try again.
    pub retry: Retry,
}

macro_rules! codes {
    ($($number:literal $constant:ident $fault:ident $retry:ident $condition:literal;)*) => {
        impl Code {
            $(#[doc = concat!($condition, ".")] pub const $constant: Self = Self($number);)*
        }

        /// All codes of this version, in the order of their numbers. 1 to 63 end sessions, 64 and up end documents.
        pub const CODES: &[Row] = &[$(Row {
            code: Code::$constant,
            name: stringify!($constant),
            condition: $condition,
            fault: Fault::$fault,
            retry: Retry::$retry,
        }),*];
    };
}

codes! {
    1 SHUTDOWN Nobody Later "The end that states it is shutting down in order";
    2 VERSION_MISMATCH Nobody Never "The two ends have no protocol version in common";
    3 SAME_REPLICA Nobody Later "Both ends have the same replica id; one of them is a copy and takes a new one";
    4 CLONE Peer Later "Another live session has this replica id with another timeline; take a new replica id";
    5 UNAUTHENTICATED Peer Never "The host did not accept the token";
    6 MALFORMED Peer Later "A frame can't be decoded";
    7 OVERSIZED Peer Never "A frame, op or count is over the stated limits";
    8 UNEXPECTED Peer Later "A message is not allowed in this state";
    9 OVERRUN Peer Later "More was sent than the credit or the limits before Welcome allow";
    10 SILENT Nobody Later "Nothing was heard until the deadline";
    11 HANDSHAKE_TIMEOUT Nobody Later "The handshake was not finished until its deadline";
    12 REPLACED Nobody Never "A newer session of the same replica took this one's place";
    13 RESTARTED Nobody Now "The peer began a new session on the same path";
    14 OVERLOADED Sender Later "The end that states it has too many sessions";
    64 DONE Nobody Never "The app at the end that states it has closed the document";
    65 FORBIDDEN Peer Never "The peer has no right to open the document with this access";
    66 UNKNOWN_DOCUMENT Nobody Later "The end that states it does not hold the document and does not take it up";
    67 TOO_MANY_DOCUMENTS Peer Later "More documents are open on the session than the limits allow";
    68 STORAGE_FAILED Sender Later "The storage of the end that states it failed, or falls behind; it opens the document again when it works";
    69 MISMATCH Nobody Now "Both are at their tails but the digests of the heads differ, or an op differs from that of the same id; it is opened again with heads";
    70 AUTHOR_GAP Peer Now "An op came before its author's earlier ones; it is opened again with heads";
    71 TAIL_LOST Nobody Now "A cursor lies beyond the log's tail; the document is opened again with a new timeline";
    72 RESET Nobody Now "The log is rebuilt from the authority; the document is opened again with a new timeline";
    73 BELOW_HORIZON Nobody Never "What the peer lacks exists only in a snapshot that it can't be sent";
    74 READ_ONLY Peer Never "Changes came from a peer that may only read";
    75 DAMAGED Nobody Never "The digests of the heads differ again and again, but the heads show no fork";
    76 OP_TOO_LARGE Nobody Never "An op is larger than the peer takes";
    77 SET_BACK Sender Now "The peer holds ops of the end that states it that this end does not know; it is opened again with heads";
    78 COMPACTED Nobody Now "What the peer lacks exists only in a snapshot by now; the document is opened again, to send that";
}

impl Code {
    /// The code's row; `None` for a code of another version.
    pub fn row(self) -> Option<&'static Row> {
        CODES.iter().find(|row| row.code == self)
    }

    /// Whose fault it is; nobody's for a code of another version.
    pub fn fault(self) -> Fault {
        self.row().map_or(Fault::Nobody, |row| row.fault)
    }

    /// Whether to try again; later for a code of another version.
    pub fn retry(self) -> Retry {
        self.row().map_or(Retry::Later, |row| row.retry)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.row() {
            Some(row) => f.write_str(row.name),
            None => write!(f, "code {}", self.0),
        }
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
