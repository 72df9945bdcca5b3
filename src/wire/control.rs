//! The control messages: rare, small, and written by postcard after their kind byte.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::{Buf, Bytes};
use serde::{Deserialize, Serialize};

use super::Malformed;
use super::varint::{put_varint, take_u64_le, take_varint};
use crate::codes::Code;
use crate::digest::Chain;
use crate::heads::{Head, Heads};
use crate::op::{Cursor, DocumentId, ReplicaId, Timeline};
use crate::snapshot::SnapshotId;

/// The newest protocol version that this code speaks.
pub const VERSION: u16 = 1;
/// The oldest protocol version that this code speaks.
pub const VERSION_MIN: u16 = 1;

/// The first message in both directions. Its layout is frozen for ever.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Hello {
    /// The oldest version that the sender speaks.
    pub version_min: u16,
    /// The newest version that the sender speaks.
    pub version_max: u16,
    /// Who it is.
    pub replica: ReplicaId,
    /// The timeline of this open of the replica.
    #[serde(with = "fixed")]
    pub timeline: Timeline,
    /// The timeline of the open before.
    #[serde(with = "fixed_option")]
    pub previous: Option<Timeline>,
    /// 64 random bits, drawn for this session.
    #[serde(with = "postcard::fixint::le")]
    pub nonce: u64,
    /// What the sender takes at most.
    pub limits: Limits,
    /// One bit a feature; unknown bits are ignored. Both ends use those that both have set.
    pub features: u64,
    /// Proof of who it is, for the other end's host.
    pub token: Option<Bytes>,
    /// For later versions; ignored by this one.
    pub extensions: Bytes,
}

/// The feature bit of presence messages. Nothing sends them yet.
pub const FEATURE_PRESENCE: u64 = 1;

/// What one end takes at most. Stated once, in Hello.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Limits {
    /// Bytes of one frame.
    pub frame: u32,
    /// Bytes of one op's body.
    pub op: u32,
    /// Cost of what may be outstanding in one document when it is opened.
    pub window: u32,
    /// Cost of what may be outstanding on the whole link at first.
    pub credit: u32,
    /// Documents open on one session.
    pub documents: u32,
    /// Authors of one document.
    pub authors: u32,
}

/// What an acknowledgement promises.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Durability {
    /// The ops live in memory and are gone with the process.
    Memory,
    /// The ops survive the process, but perhaps not a loss of power.
    #[default]
    Commit,
    /// The ops were synced and survive a loss of power.
    Fsync,
}

/// The peer's Hello was accepted.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Welcome {
    /// The version that both ends speak from now on.
    pub version: u16,
    /// The wrapping sum of the XXH3 hashes of both Hello frames: nobody changed them on the way.
    #[serde(with = "postcard::fixint::le")]
    pub hellos: u64,
    /// What this end's acknowledgements promise.
    pub durability: Durability,
}

/// Refuse (instead of Welcome) and Goodbye (at any time): the session ends. The layout is frozen for ever.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Farewell {
    /// Why.
    pub code: Code,
    /// Why, for people.
    pub reason: String,
    /// When to come back, in milliseconds, if the code says that it helps.
    pub retry_after: Option<u32>,
}

/// What a replica wants to do with a document on this session.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Access {
    /// Receive ops.
    Read,
    /// Receive and send ops.
    #[default]
    Write,
}

/// The name and version of the schema that the app gives its bodies.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Schema {
    /// Its name, of at most [`NAME_BYTES_MAX`](crate::op::NAME_BYTES_MAX) bytes.
    pub name: String,
    /// Its version.
    pub version: u32,
}

/// Timelines of a document that differ from those in Hello: the current one and the one before it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct OwnTimelines {
    /// The current one.
    #[serde(with = "fixed")]
    pub current: Timeline,
    /// The one that ended where the current one begins.
    #[serde(with = "fixed_option")]
    pub previous: Option<Timeline>,
}

/// The sender has the document open on this session. Both ends send one; neither waits.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Open {
    /// What stands for the document, in this timeline, in the sender's messages.
    pub number: u32,
    /// The document.
    pub document: DocumentId,
    /// What the sender wants to do; what it lets the other end do is told by opening at all.
    pub access: Access,
    /// The cheap ways to resume failed: both ends are to exchange heads and leave nothing out.
    pub thorough: bool,
    /// The schema of the bodies, if the app has one.
    pub schema: Option<Schema>,
    /// The document's timelines, where they differ from those in Hello.
    pub timelines: Option<OwnTimelines>,
    /// Where the current timeline begins.
    pub begins: u64,
    /// The first position that is not only in a snapshot.
    pub horizon: u64,
    /// The position after the sender's last entry.
    pub tail: u64,
    /// The digest of the sender's heads.
    #[serde(with = "postcard::fixint::le")]
    pub digest: u64,
    /// How far the sender holds the receiver's log.
    pub cursor: Option<WireCursor>,
    /// What the sender holds of the ops that the receiver authored.
    pub own: WireHead,
    /// The number of the sender's last Ack or Rewind; older ones are void.
    pub acks: u64,
}

/// A [`Cursor`] on the wire.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct WireCursor {
    #[serde(with = "fixed")]
    timeline: Timeline,
    position: u64,
}

impl From<Cursor> for WireCursor {
    fn from(cursor: Cursor) -> Self {
        Self { timeline: cursor.timeline, position: cursor.position }
    }
}

impl From<WireCursor> for Cursor {
    fn from(cursor: WireCursor) -> Self {
        Self { timeline: cursor.timeline, position: cursor.position }
    }
}

/// A [`Head`] on the wire.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct WireHead {
    seq: u64,
    #[serde(with = "postcard::fixint::le")]
    chain: u64,
}

impl From<Head> for WireHead {
    fn from(head: Head) -> Self {
        Self { seq: head.seq, chain: head.chain.0 }
    }
}

impl From<WireHead> for Head {
    fn from(head: WireHead) -> Self {
        Self { seq: head.seq, chain: Chain(head.chain) }
    }
}

/// Denied (an Open was not granted) and Close (answered by Close): the document is not open on this session.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct End {
    /// The document.
    pub document: DocumentId,
    /// Why.
    pub code: Code,
    /// Why, for people.
    pub reason: String,
}

/// Where the sender starts in its log, when both Opens do not tell.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Resume {
    /// The sender's number of the document.
    pub document: u32,
    /// The position; `None`: the receiver must send its heads first.
    pub from: Option<u64>,
}

/// A part of the sender's heads.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct HeadsPart {
    /// The sender's number of the document.
    pub document: u32,
    /// How many heads came in earlier parts.
    pub offset: u32,
    /// No more parts follow.
    pub last: bool,
    /// The heads in the order of their authors: id (16 bytes), seq (varint), chain (8 bytes).
    pub heads: Bytes,
}

/// A part of the sender's snapshot. One without bytes offers it: what the receiver lacks exists only there.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct SnapshotPart {
    /// The sender's number of the document.
    pub document: u32,
    /// Which snapshot.
    pub id: SnapshotId,
    /// Where the part belongs.
    pub offset: u64,
    /// The part.
    pub bytes: Bytes,
}

/// The sender takes the snapshot that was offered, from here on.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct SnapshotWanted {
    /// The sender's number of the document.
    pub document: u32,
    /// The first byte.
    pub offset: u64,
    /// How many bytes there may be: the next are asked for when these are here.
    pub bytes: u32,
}

/// What an author's number stands for.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Announce {
    /// The sender's number of the document.
    pub document: u32,
    /// The author's number.
    pub number: u32,
    /// The author.
    pub author: ReplicaId,
    /// The seq from which frames count that are not absolute.
    pub base: u64,
}

/// A place in a log: a position, and an offset into the body of the op there, if that travels in parts.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Point {
    /// The position.
    pub position: u64,
    /// Bytes of the op at `position` that lie before this place.
    pub offset: u32,
}

impl Point {
    /// The place before the op at `position`.
    pub const fn at(position: u64) -> Self {
        Self { position, offset: 0 }
    }
}

/// How far the sender has taken and made durable the receiver's log. Absolute: the newest one counts.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Ack {
    /// The receiver's number of the document.
    pub document: u32,
    /// Counts the session's Acks, Rewinds and Credits.
    pub number: u64,
    /// Everything before this place was taken. It may be lower than in an earlier one.
    pub received: Point,
    /// Everything before this position is durable.
    pub held: u64,
    /// The cost that may be outstanding in the document beyond `received`.
    pub window: u64,
    /// The cost that may be outstanding on the link.
    pub credit: u64,
    /// A range of the sender's own log that holds nothing for the receiver.
    pub skip: Option<Skip>,
    /// Where the sender stands, when it believes that both ends are in step.
    pub level: Option<Level>,
}

/// Positions of the sender's log in which everything came from the receiver.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Skip {
    /// The sender's number of the document.
    pub document: u32,
    /// The first one.
    pub from: u64,
    /// The one after the last.
    pub to: u64,
}

/// The sender's tail and the digest of its heads there.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Level {
    /// The position after the sender's last entry.
    pub tail: u64,
    /// The digest of the sender's heads.
    #[serde(with = "postcard::fixint::le")]
    pub digest: u64,
}

/// Something of the receiver's log is missing: send it again.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Rewind {
    /// The receiver's number of the document.
    pub document: u32,
    /// Counts the session's Acks, Rewinds and Credits.
    pub number: u64,
    /// Everything before this place was taken.
    pub received: Point,
    /// Where the missing range begins.
    pub from: Point,
    /// Where it ends; `None`: everything from there on is missing.
    pub to: Option<Point>,
}

/// Somebody waits for the acknowledgement of what was sent: it is not to be held back.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct ImmediateAck {
    /// The sender's number of the document.
    pub document: u32,
    /// Everything of the sender's log below this position is waited for.
    pub to: u64,
}

/// What an app tells others now and need not keep. Its place on the wire; nothing sends it yet.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Presence {
    /// The sender's number of the document.
    pub document: u32,
    /// Opaque.
    pub body: Bytes,
}

/// Asks for a Pong.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Ping {
    /// Comes back in the Pong.
    pub token: u64,
    /// The sender waits for credit: all windows are to be stated again.
    pub blocked: bool,
}

/// Answers a Ping.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Pong {
    /// The Ping's.
    pub token: u64,
}

/// What may be outstanding on the link.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Credit {
    /// Counts the session's Acks, Rewinds and Credits.
    pub number: u64,
    /// The cost that may be outstanding on the link.
    pub total: u64,
}

/// The sender found that authors' histories differ at both ends.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Fork {
    /// The sender's number of the document.
    pub document: u32,
    /// The authors, 16 bytes each; at most [`FORKS_MAX`].
    pub authors: Bytes,
}

/// How many forked authors are named at once: as many as fit the smallest frame, with all that a datagram adds.
pub const FORKS_MAX: usize = 32;

/// What the head of one author takes at most.
pub const HEAD_BYTES_MAX: usize = 16 + 10 + 8;

/// Writes heads as they stand in [`HeadsPart`], as many as fit `max_bytes`; says how many, and after which author it
/// stopped if it did.
pub fn pack_heads(heads: impl Iterator<Item = (ReplicaId, Head)>, max_bytes: usize) -> (Bytes, u32, Option<ReplicaId>) {
    let (mut out, mut count, mut last) = (Vec::new(), 0, None);
    for (author, head) in heads {
        if out.len() + HEAD_BYTES_MAX > max_bytes {
            return (out.into(), count, last);
        }
        out.extend_from_slice(&author.0);
        put_varint(&mut out, head.seq);
        out.extend_from_slice(&head.chain.0.to_le_bytes());
        count += 1;
        last = Some(author);
    }
    (out.into(), count, None)
}

/// Adds the heads of one part to `heads`; they must follow the authors before.
pub fn unpack_heads(mut part: Bytes, heads: &mut Heads, last: &mut Option<ReplicaId>) -> Result<(), Malformed> {
    while part.has_remaining() {
        let mut id = [0; 16];
        part.try_copy_to_slice(&mut id).map_err(|_| Malformed::Truncated)?;
        let author = ReplicaId(id);
        let head = Head { seq: take_varint(&mut part)?, chain: Chain(take_u64_le(&mut part)?) };
        if head.seq == 0 || last.is_some_and(|last| last >= author) {
            return Err(Malformed::Order);
        }
        heads.set(author, head);
        *last = Some(author);
    }
    Ok(())
}

/// Timelines as eight bytes: they are random, a varint would only make them longer.
mod fixed {
    use super::Timeline;
    use core::num::NonZeroU64;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(timeline: &Timeline, serializer: S) -> Result<S::Ok, S::Error> {
        timeline.0.get().to_le_bytes().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timeline, D::Error> {
        let bits = u64::from_le_bytes(<[u8; 8]>::deserialize(deserializer)?);
        NonZeroU64::new(bits).map(Timeline).ok_or_else(|| D::Error::custom("a timeline is not zero"))
    }
}

/// The same where there may be none: eight zeros.
mod fixed_option {
    use super::Timeline;
    use core::num::NonZeroU64;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(timeline: &Option<Timeline>, serializer: S) -> Result<S::Ok, S::Error> {
        timeline.map_or(0, |timeline| timeline.0.get()).to_le_bytes().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timeline>, D::Error> {
        Ok(NonZeroU64::new(u64::from_le_bytes(<[u8; 8]>::deserialize(deserializer)?)).map(Timeline))
    }
}
