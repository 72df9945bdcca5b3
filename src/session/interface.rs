//! What goes into a session and what comes out of it.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::codes::Code;
use crate::heads::{Head, Heads};
use crate::log::{Chunk, Comparison, Log};
use crate::op::{Cursor, DocumentId, Op, Origin, ReplicaId, Timeline};
use crate::snapshot::SnapshotId;
use crate::timeline::History;
use crate::wire::control::Schema;
use crate::wire::{Access, Durability, Packed, Point};

/// A document that the host opens on the session: what it holds of it, durably, at this moment.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Opening {
    /// The host's number of the document in its current timeline: never reused, the same on all sessions.
    pub number: u32,
    /// The document.
    pub document: DocumentId,
    /// What to do with it. An end that opens for [`Access::Read`] sends no ops.
    pub access: Access,
    /// What the peer may do.
    pub grant: Access,
    /// Leave nothing out: what was known of the peer has proved wrong.
    pub thorough: bool,
    /// The schema of the bodies, if the app has one.
    pub schema: Option<Schema>,
    /// The document's timelines.
    pub history: History,
    /// The first position that is not only in a snapshot.
    pub horizon: u64,
    /// That snapshot.
    pub snapshot: Option<SnapshotId>,
    /// The position after the last entry.
    pub tail: u64,
    /// The heads at `tail`.
    pub heads: Arc<Heads>,
    /// How far the peer's log is held.
    pub cursor: Option<Cursor>,
}

impl Opening {
    /// Opens a document for both ends to write, with all that a log tells of it. How far the peer's log is held is not
    /// known, so that heads are exchanged; fill in [`cursor`](Self::cursor) if it was stored.
    pub fn of(log: &Log, document: DocumentId, number: u32) -> Self {
        Self {
            number,
            document,
            access: Access::Write,
            grant: Access::Write,
            thorough: false,
            schema: None,
            history: log.history().clone(),
            horizon: log.horizon(),
            snapshot: log.snapshot(),
            tail: log.tail(),
            heads: log.heads().clone(),
            cursor: None,
        }
    }
}

/// What happens to a session.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum Input {
    /// A frame came from the peer, whole.
    Received(Bytes),
    /// The transport takes this many more bytes. Before the first of these it takes any number.
    Writable {
        /// How many. Frames up to the smaller frame limit of both ends must fit in the long run.
        bytes: u64,
    },
    /// [`Machine::deadline`](crate::Machine::deadline) has come.
    Timer,
    /// The host's answer to [`Output::Authenticate`]: come in, or a code and a reason.
    Authenticated(Result<(), (Code, String)>),
    /// The host opens a document, by itself or because the peer did.
    Open(Box<Opening>),
    /// The host does not open what the peer opened. If the peer has withdrawn meanwhile, nothing happens.
    Deny {
        /// The document.
        document: DocumentId,
        /// Why.
        code: Code,
        /// Why, for people.
        reason: String,
    },
    /// The host no longer has the document open on this session.
    Close {
        /// Its number.
        number: u32,
        /// Why.
        code: Code,
        /// Why, for people.
        reason: String,
    },
    /// More is durable: of the document's log, of what was taken from the peer, or of both.
    Advance {
        /// The document.
        number: u32,
        /// The position after the last durable entry.
        tail: u64,
        /// The digest of the heads there.
        digest: u64,
        /// Everything of the peer's log below this position is durable here.
        held: u64,
        /// The entries between the tail before and this one; or nothing.
        live: Option<Live>,
    },
    /// The answer to [`Output::Load`]: at least one entry.
    Loaded {
        /// The document.
        number: u32,
        /// The entries.
        chunk: Chunk,
    },
    /// The answer to [`Output::Compare`].
    Compared {
        /// The document.
        number: u32,
        /// What the heads said.
        comparison: Comparison,
    },
    /// The answer to [`Output::ReadSnapshot`]: at least one byte, or none if they are not to be read.
    SnapshotRead {
        /// The document.
        number: u32,
        /// The bytes.
        bytes: Bytes,
    },
    /// The host takes the snapshot of [`Event::SnapshotOffered`], from a byte on; the next can be asked for when these are
    /// here.
    WantSnapshot {
        /// The document.
        number: u32,
        /// The first byte.
        offset: u64,
        /// How many.
        bytes: u32,
    },
    /// The host waits until the peer acknowledges everything that is durable here: the peer is asked not to hold that
    /// acknowledgement back (the delay of acknowledgements saves frames, and costs who waits).
    ImmediateAck {
        /// The document.
        number: u32,
    },
    /// The host ends the session.
    Goodbye {
        /// Why.
        code: Code,
        /// Why, for people.
        reason: String,
        /// When the peer should come back, in milliseconds.
        retry_after: Option<u32>,
    },
}

/// Entries that have just become durable, as all sessions get them that have the document open.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum Live {
    /// Packed once for all.
    Packed(Arc<[Packed]>),
    /// All from one position to before another came from this peer, who needs to hear nothing of them.
    Brought {
        /// The peer.
        by: Origin,
        /// The first position.
        from: u64,
        /// The position after the last.
        to: u64,
    },
}

/// What a session wants done.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Output {
    /// Send this frame to the peer.
    Transmit(Bytes),
    /// Decide whether the peer may come in, and answer with [`Input::Authenticated`].
    Authenticate {
        /// Who it says it is.
        replica: ReplicaId,
        /// The timeline of its current open.
        timeline: Timeline,
        /// Its proof.
        token: Option<Bytes>,
    },
    /// Ops of the peer, in the order of its log. When they, and so its log below `to`, are durable, say so with
    /// [`Input::Advance`]. Those that are held already are to be left out, one that has a gap before it must not be
    /// applied: close the document with [`Code::AUTHOR_GAP`].
    Take {
        /// The document.
        number: u32,
        /// Where they come from, which is stored with them: what is not sent back is told by it.
        origin: Origin,
        /// The peer's timeline: that of its positions.
        timeline: Timeline,
        /// The peer's log below this was taken before.
        from: u64,
        /// The peer's log below this has been taken with these ops.
        to: u64,
        /// The ops.
        ops: Vec<Op>,
    },
    /// Read entries of the log from position `from` on, and answer with [`Input::Loaded`].
    Load {
        /// The document.
        number: u32,
        /// The first position.
        from: u64,
        /// What they may cost together, if they are more than one. At least one is needed.
        max_cost: u64,
    },
    /// Compare the log with the peer's heads, and answer with [`Input::Compared`].
    Compare {
        /// The document.
        number: u32,
        /// What the peer holds.
        heads: Arc<Heads>,
    },
    /// Read bytes of the snapshot from `offset` on, and answer with [`Input::SnapshotRead`].
    ReadSnapshot {
        /// The document.
        number: u32,
        /// The one that was said in [`Input::Open`].
        id: SnapshotId,
        /// The first byte.
        offset: u64,
        /// How many there may be.
        max: u64,
    },
    /// Bytes of the peer's snapshot, of those that were asked for, in order.
    TakeSnapshot {
        /// The document.
        number: u32,
        /// The first byte.
        offset: u64,
        /// The bytes.
        bytes: Bytes,
    },
    /// Something that the host will want to know.
    Event(Event),
}

impl Output {
    /// The document that it is about, if it is about one that the host has opened.
    pub fn number(&self) -> Option<u32> {
        match self {
            Self::Take { number, .. }
            | Self::Load { number, .. }
            | Self::Compare { number, .. }
            | Self::ReadSnapshot { number, .. }
            | Self::TakeSnapshot { number, .. } => Some(*number),
            Self::Event(event) => event.number(),
            Self::Transmit(_) | Self::Authenticate { .. } => None,
        }
    }
}

impl Event {
    /// The document that it is about, if it is about one that the host has opened.
    pub fn number(&self) -> Option<u32> {
        match self {
            Self::Opened { number, .. }
            | Self::Acknowledged { number, .. }
            | Self::InStep { number }
            | Self::SnapshotOffered { number, .. }
            | Self::Forked { number, .. }
            | Self::DocumentClosed { number, .. } => Some(*number),
            Self::Connected { .. } | Self::PeerOpened { .. } | Self::Released { .. } | Self::Closed(_) => None,
        }
    }
}

/// What a session tells its host.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Event {
    /// Both ends are welcome.
    Connected {
        /// The peer.
        replica: ReplicaId,
        /// What its acknowledgements promise.
        durability: Durability,
    },
    /// The peer opened a document that is not open here: answer with [`Input::Open`] or [`Input::Deny`].
    PeerOpened {
        /// The document.
        document: DocumentId,
        /// What the peer wants to do.
        access: Access,
        /// The schema of its bodies.
        schema: Option<Schema>,
    },
    /// The document is open at both ends.
    Opened {
        /// The document.
        number: u32,
        /// What the peer holds of the ops that this replica authored. If this replica does not know of some, it was set
        /// back or copied: it needs a new id, and the document is to be closed with [`Code::SET_BACK`] and opened again,
        /// thorough, before anything is sent.
        own: Head,
    },
    /// The peer has moved on in this log, or turned out to be ahead of 0 when the document was opened.
    Acknowledged {
        /// The document.
        number: u32,
        /// Everything below is durable at the peer.
        acked: u64,
    },
    /// Both ends hold the same: their heads have the same digest. If one of them only reads, it holds everything that the
    /// other one does, and perhaps more, which it can't send.
    InStep {
        /// The document.
        number: u32,
    },
    /// What is lacking here exists only in a snapshot of the peer's, which sends nothing else: take it with
    /// [`Input::WantSnapshot`], install it and open the document again; or close it.
    SnapshotOffered {
        /// The document.
        number: u32,
        /// Which snapshot.
        snapshot: SnapshotId,
    },
    /// Authors have different histories at both ends.
    Forked {
        /// The document.
        number: u32,
        /// The authors.
        authors: Vec<ReplicaId>,
    },
    /// The document is no longer open on the session, and not because the host closed it.
    DocumentClosed {
        /// Its number.
        number: u32,
        /// Why; [`Code::retry`] says whether to open it again.
        code: Code,
        /// Why, for people.
        reason: String,
        /// Who closed it.
        by: By,
    },
    /// The peer knows that we closed this document: it can be opened again.
    Released {
        /// The document.
        document: DocumentId,
    },
    /// The session is over. Nothing follows.
    Closed(Ending),
}

/// One of the two ends.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum By {
    /// This one.
    Us,
    /// The other one.
    Peer,
}

/// How a session ended.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Ending {
    /// Why.
    pub code: Code,
    /// Why, for people.
    pub reason: String,
    /// When to come back, in milliseconds, if the peer said.
    pub retry_after: Option<u32>,
    /// Who ended it.
    pub by: By,
}

/// What the caller did wrong.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Misuse {
    /// No document with this number is open on the session.
    NotOpen(u32),
    /// The document, or another with this number, is open on the session, or its closing is not yet
    /// [`Event::Released`].
    AlreadyOpen(u32),
    /// The name of the schema has more than 64 bytes.
    SchemaTooLong,
    /// Nothing was asked that this would answer.
    NotAsked,
    /// A position is lower than one stated before, or beyond what was taken.
    Regressed,
}

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOpen(number) => write!(f, "document {number} is not open on this session: open it first"),
            Self::AlreadyOpen(number) => write!(f, "document {number} is open on this session: close it first"),
            Self::SchemaTooLong => f.write_str("the name of a schema has at most 64 bytes: shorten it"),
            Self::NotAsked => f.write_str("nothing was asked that this answers: wait for the question"),
            Self::Regressed => f.write_str("a position goes back, or beyond what was taken: state what is durable"),
        }
    }
}

impl core::error::Error for Misuse {}

/// Where a session is on its way from its first frame to its last.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Stage {
    /// Hello was sent; the peer's is not here.
    Greeting,
    /// The host decides whether the peer may come in.
    Asking,
    /// The peer is welcome here; whether we are there is not known.
    Welcoming,
    /// Both are welcome.
    Live,
    /// Over.
    Closed,
}

/// How far a document is on a session: `sent >= received >= acked` of this end's log, `taken >= held` of the peer's.
/// Everything that a session does follows from these five.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Frontiers {
    /// Everything of our log before this place was sent, or is not needed.
    pub sent: Point,
    /// Everything before this place was taken by the peer.
    pub received: Point,
    /// Everything below this position is durable at the peer; or, at an end that only reads, is not sent.
    pub acked: u64,
    /// Everything of the peer's log before this place was handed to the host.
    pub taken: Point,
    /// Everything below this position is durable here; or, of a peer that only reads, was never sent.
    pub held: u64,
}

/// How a document stands between two ends, for people: what is counted changes as soon as it was looked at.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Standing {
    /// Both hold the same, as far as this end knows.
    pub in_step: bool,
    /// So many entries here are not known to be durable at the peer.
    pub unacknowledged: u64,
    /// So many entries of the peer's log are known of and not durable here. More may come.
    pub unheld: u64,
}

/// What went over a session, counted.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Stats {
    /// Frames sent.
    pub frames_sent: u64,
    /// Their bytes.
    pub bytes_sent: u64,
    /// Frames among them that were sent before.
    pub frames_repeated: u64,
    /// Frames received.
    pub frames_received: u64,
    /// Their bytes.
    pub bytes_received: u64,
    /// Frames among them that were damaged, or of another session, or more than was granted, or came when they meant
    /// nothing.
    pub frames_dropped: u64,
}
