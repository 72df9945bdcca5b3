//! What goes into a replica and what comes out of it.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Options, Ticket};
use crate::codes::Code;
use crate::heads::Heads;
use crate::op::{DocumentId, Op, OpId, ReplicaId};
use crate::session::{self, Ending, Transport};
use crate::snapshot::SnapshotId;
use crate::storage::{Batch, Reply, Request};
use crate::wire::control::Schema;
use crate::wire::{Access, Durability};

/// Stands for a link for as long as the driver has it. The driver chooses the numbers and never uses one twice.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct LinkId(pub u64);

/// What happens to a replica.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum Input {
    /// A link came up.
    Connected {
        /// Its number.
        link: LinkId,
        /// What it is.
        transport: Transport,
        /// Proof of who we are, for the peer.
        token: Option<Bytes>,
        /// The peer is the authority of the documents opened with [`Authority::Upstream`](super::Authority::Upstream).
        upstream: bool,
    },
    /// A link is gone.
    Disconnected {
        /// Its number.
        link: LinkId,
    },
    /// A frame came, whole.
    Received {
        /// From where.
        link: LinkId,
        /// The frame.
        frame: Bytes,
    },
    /// The transport takes this many more bytes; see [`session::Input::Writable`].
    Writable {
        /// Which.
        link: LinkId,
        /// How many.
        bytes: u64,
    },
    /// [`Machine::deadline`](crate::Machine::deadline) has come.
    Timer,
    /// The app opens a document: on all links, now and later, until it closes it.
    Open {
        /// Which.
        document: DocumentId,
        /// How.
        options: Options,
    },
    /// The app closes a document. What is under way is still written.
    Close {
        /// Which.
        document: DocumentId,
    },
    /// The app appends ops to a document that it has open.
    Append {
        /// Which.
        document: DocumentId,
        /// The bodies, in order.
        bodies: Vec<Bytes>,
    },
    /// The app waits until the peer of `link` acknowledges what it has appended to a document so far: as soon as that is
    /// sent, the peer is asked not to hold its acknowledgement back. If the document is not open there, nothing happens.
    ImmediateAck {
        /// Which.
        document: DocumentId,
        /// Whose acknowledgement.
        link: LinkId,
    },
    /// The answer to [`Output::Storage`].
    Storage {
        /// The question's.
        ticket: Ticket,
        /// The reply, or what went wrong.
        reply: Result<Reply, String>,
    },
    /// The answer to [`Output::Ask`].
    Answer {
        /// The question's.
        ticket: Ticket,
        /// What is granted, or why it is not. For [`Question::Peer`] the access means nothing.
        answer: Result<Access, (Code, String)>,
    },
    /// The app gives up this replica's history of a document where it differs from that of the peer of `link`, and
    /// rebuilds the document from there. (With [`Authority::Upstream`](super::Authority::Upstream) this happens by itself.)
    /// Until both are in step, the document is open with that peer alone. Should that come back as another replica and not
    /// be known by its timelines (it was opened more than once in between), then [`Event::Mended`] does not come: reset
    /// from there again. A peer that only reads the document has nothing to give: [`Misuse::NothingToTake`], and if it opens
    /// it so afterwards, that is closed with [`Code::FORBIDDEN`].
    Reset {
        /// Which.
        document: DocumentId,
        /// From where.
        link: LinkId,
    },
    /// The app, which is the [authority](super::Authority::Us) of a document, has made a snapshot of it: opaque bytes that
    /// stand for all ops below a position. The ops are dropped, and who lacks any of them takes the snapshot.
    Compact {
        /// Which.
        document: DocumentId,
        /// The position: above the horizon, and durable.
        position: u64,
        /// What stands for everything below it.
        body: Bytes,
    },
    /// The host ends a session.
    Disconnect {
        /// Its link.
        link: LinkId,
        /// Why.
        code: Code,
        /// Why, for people.
        reason: String,
        /// When the peer should come back, in milliseconds.
        retry_after: Option<u32>,
    },
}

/// What a replica wants done.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Output {
    /// Send this frame.
    Transmit {
        /// Where.
        link: LinkId,
        /// The frame.
        frame: Bytes,
    },
    /// The session is over: close the link when everything has been sent.
    Disconnect {
        /// Which.
        link: LinkId,
        /// How it ended.
        ending: Ending,
    },
    /// Let the storage carry this out, in the order of the outputs, and answer with [`Input::Storage`].
    Storage {
        /// For the answer.
        ticket: Ticket,
        /// What to do.
        request: Request,
    },
    /// Decide, and answer with [`Input::Answer`].
    Ask {
        /// For the answer.
        ticket: Ticket,
        /// What about.
        question: Question,
    },
    /// Something that the app will want to know.
    Event(Event),
}

/// What a replica asks its host.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Question {
    /// May this peer connect?
    Peer {
        /// On which link.
        link: LinkId,
        /// Who it says it is.
        replica: ReplicaId,
        /// Its proof.
        token: Option<Bytes>,
    },
    /// May this peer have the document, and only to read, or also to write? Asked when the peer opens it, and when the
    /// app has it open and could open it with the peer: before the answer, the peer hears nothing of it.
    Document {
        /// On which link.
        link: LinkId,
        /// Who it is.
        replica: ReplicaId,
        /// The document.
        document: DocumentId,
        /// What it wants to do, or, where it has not said so yet, the most it could.
        access: Access,
        /// The schema of the bodies, as the peer has it, or, where it has not said so yet, the app.
        schema: Option<Schema>,
    },
}

/// What a replica tells its app.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Event {
    /// A session is live.
    Connected {
        /// Its link.
        link: LinkId,
        /// The peer.
        replica: ReplicaId,
        /// What its acknowledgements promise.
        durability: Durability,
    },
    /// A session is over, or its link is gone.
    Disconnected {
        /// Its link.
        link: LinkId,
        /// How it ended; `None` if the link went away under it.
        ending: Option<Ending>,
    },
    /// A document is loaded: appends are taken at once from now on. After a reset, or when a snapshot was installed, this
    /// comes again: what the app made of the document is to be made anew.
    Opened {
        /// Which.
        document: DocumentId,
        /// What is held.
        heads: Arc<Heads>,
        /// The position after the last entry.
        tail: u64,
        /// What stands for the entries that are not there, if any.
        snapshot: Option<SnapshotId>,
    },
    /// A snapshot has taken the place of all entries below the horizon.
    Compacted {
        /// The document.
        document: DocumentId,
        /// The new horizon.
        horizon: u64,
    },
    /// Own ops are durable here: all that this replica appended up to and with this one.
    Applied {
        /// The document.
        document: DocumentId,
        /// The op. Its author is a former id of this replica's, if the batch was being written when that was renewed.
        id: OpId,
        /// The position after it.
        position: u64,
    },
    /// Ops of others are durable here.
    Received {
        /// What was written: all of it, own ops among it in their place.
        batch: Arc<Batch>,
    },
    /// A peer has moved on in a document, or turned out to be ahead of 0 when it was opened with it: an
    /// acknowledgement that was lost with an earlier session is made up for.
    Acknowledged {
        /// Its link.
        link: LinkId,
        /// The document.
        document: DocumentId,
        /// Everything below this position of our log is durable there.
        position: u64,
    },
    /// Both ends hold the same of a document. If one of them only reads, it holds everything that the other one does, and
    /// perhaps more, which it can't send.
    InStep {
        /// With whom.
        link: LinkId,
        /// The document.
        document: DocumentId,
        /// The digest of the heads here.
        digest: u64,
    },
    /// Authors have different histories at both ends of a link.
    Forked {
        /// With whom.
        link: LinkId,
        /// The document.
        document: DocumentId,
        /// Who.
        authors: Vec<ReplicaId>,
    },
    /// The replica was copied or set back, or is caught in a fork, and has a new id. Its sessions go on under the id that
    /// they began with.
    Renewed {
        /// The new id.
        replica: ReplicaId,
        /// The old one.
        before: ReplicaId,
    },
    /// A reset found ops that have no place in the document's new history, and does not append them.
    Orphaned {
        /// The document.
        document: DocumentId,
        /// The ops.
        ops: Vec<Op>,
    },
    /// A reset is done: everything that was put aside has its place again, or was handed over.
    Mended {
        /// The document.
        document: DocumentId,
    },
    /// The storage failed. The document is closed on all sessions and tried again; what was appended and not applied
    /// is in doubt until [`Event::Recovered`].
    Failed {
        /// The document.
        document: DocumentId,
        /// What the storage said.
        reason: String,
    },
    /// The storage works again.
    Recovered {
        /// The document.
        document: DocumentId,
        /// All own ops up to and with this seq are durable.
        seq: u64,
        /// The bodies of own ops that are not, and if there are any, all that was appended after them: in order, to be
        /// appended again if they are still wanted.
        lost: Vec<Bytes>,
    },
    /// The document is not open with this peer, and will not be until one of the two opens it again.
    Closed {
        /// With whom.
        link: LinkId,
        /// The document.
        document: DocumentId,
        /// Why.
        code: Code,
        /// Why, for people.
        reason: String,
        /// Who said so.
        by: session::By,
    },
}

/// What the caller did wrong.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Misuse {
    /// The link's number is in use.
    LinkInUse(LinkId),
    /// There is no such link, or its session is over.
    UnknownLink(LinkId),
    /// The app has not opened the document.
    NotOpen(DocumentId),
    /// So much waits for the document's storage that no more is taken. Wait for [`Event::Applied`] or
    /// [`Event::Recovered`].
    Full(DocumentId),
    /// The document was opened for reading only.
    ReadOnly(DocumentId),
    /// A body is larger than the limit of bytes.
    TooLarge(u32),
    /// Documents are compacted by their [authority](super::Authority::Us) only.
    NotAuthority(DocumentId),
    /// The position is not above the horizon, or not durable; or the document is being loaded, reset or compacted.
    NotToCompact(DocumentId, u64),
    /// The peer of the link only reads the document: it can't be rebuilt from there.
    NothingToTake(DocumentId, LinkId),
}

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LinkInUse(LinkId(link)) => write!(f, "link {link} is in use: give each connection a new number"),
            Self::UnknownLink(LinkId(link)) => write!(f, "there is no link {link}: connect it first"),
            Self::NotOpen(document) => write!(f, "document {document} is not open: open it first"),
            Self::Full(document) => write!(f, "too much waits for the storage of {document}: wait until it is applied"),
            Self::ReadOnly(document) => write!(f, "document {document} was opened for reading only"),
            Self::TooLarge(max) => write!(f, "an op has at most {max} bytes: split it, or raise the limit everywhere"),
            Self::NotAuthority(document) => {
                write!(f, "document {document} is compacted by its authority: open it as that")
            }
            Self::NotToCompact(document, position) => {
                write!(f, "document {document} can't be compacted to position {position} now: take one that is durable")
            }
            Self::NothingToTake(document, LinkId(link)) => {
                write!(
                    f,
                    "document {document} can't be rebuilt from link {link}, whose peer only reads it: choose another"
                )
            }
        }
    }
}

impl core::error::Error for Misuse {}

/// What of the app's appends to a document is on its way into the log.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Appending {
    /// Bodies that are not yet durable, or of which that is not known since the storage failed. They become durable, or
    /// are told as lost, in the order in which they were appended.
    pub bodies: usize,
    /// A reset put ops aside, perhaps appends among them, and has not dealt with all of them.
    pub aside: bool,
}

impl Appending {
    /// Whether nothing is on its way.
    pub fn is_done(&self) -> bool {
        *self == Self::default()
    }
}

/// What a replica did, counted.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Stats {
    /// Frames that were packed for all sessions at once.
    pub packed: u64,
    /// Batches written.
    pub batches: u64,
    /// Entries in them.
    pub entries: u64,
    /// Ops that came and were held already.
    pub duplicates: u64,
    /// Times that entries were read from storage.
    pub reads: u64,
}
