//! What is replicated: documents, replicas, and the operations that replicas author in documents.

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use core::fmt;
use core::num::NonZeroU64;
use core::str::FromStr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::digest::{BodyHash, Chain};

/// One incarnation of a participant that holds documents: 128 random bits.
#[derive(Clone, Copy, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct ReplicaId(pub [u8; 16]);

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// One unbroken history of positions in a log: 64 random bits, never zero.
#[derive(Clone, Copy, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Timeline(pub NonZeroU64);

impl Timeline {
    /// The timeline of these random bits; of 1 if they are all zero.
    pub const fn new(bits: u64) -> Self {
        match NonZeroU64::new(bits) {
            Some(bits) => Self(bits),
            None => Self(NonZeroU64::MIN),
        }
    }
}

impl fmt::Debug for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0.get() >> 32)
    }
}

/// Where an entry came from: a peer under one replica id, and the timeline that it was in. 64 bits that tell both from
/// others, never zero.
///
/// The timeline alone does not say it: a replica that takes a new id keeps its timeline, and its copy has the old id and
/// remembers the timeline too. How far a peer's log is held is known by its id; what came from another is not below that.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Origin(pub NonZeroU64);

impl Origin {
    /// That of what the replica sends under this id in this timeline.
    pub fn of(replica: ReplicaId, timeline: Timeline) -> Self {
        let bits = xxh3_64_with_seed(&replica.0, timeline.0.get());
        Self(NonZeroU64::new(bits).unwrap_or(NonZeroU64::MIN))
    }
}

/// "I durably hold everything of your log below `position`", said of one timeline of the peer's.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Cursor {
    /// The peer's timeline in which the position means something.
    pub timeline: Timeline,
    /// The first position that is not held.
    pub position: u64,
}

/// Which op: the author's `seq`th in the document, counted from 1 without gaps.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct OpId {
    /// Who made it.
    pub author: ReplicaId,
    /// Its number among the author's ops in this document.
    pub seq: u64,
}

/// What an op carries.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum Body {
    /// The opaque bytes that the app wrote.
    Bytes(Bytes),
    /// The body is gone (an authority voided it); its hash keeps the chain whole.
    Blank(BodyHash),
}

impl Body {
    /// The hash of the body, whether it is still here or not.
    pub fn hash(&self) -> BodyHash {
        match self {
            Self::Bytes(bytes) => BodyHash::of(bytes),
            Self::Blank(hash) => *hash,
        }
    }

    /// Bytes that the body takes on the wire.
    pub fn wire_len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Blank(_) => size_of::<u64>(),
        }
    }

    /// The bytes, if the op is not blank.
    pub fn bytes(&self) -> Option<&Bytes> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Blank(_) => None,
        }
    }
}

/// What an op costs beyond its body in credit, buffers and tails.
pub const OP_OVERHEAD: u64 = 32;

/// One immutable change.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Op {
    /// Which one.
    pub id: OpId,
    /// What it carries.
    pub body: Body,
}

impl Op {
    /// What the op is charged in credit: its body and [`OP_OVERHEAD`].
    pub fn cost(&self) -> u64 {
        self.body.wire_len() as u64 + OP_OVERHEAD
    }
}

/// An op as it stands in a replica's log.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Entry {
    /// The op.
    pub op: Op,
    /// The author's chain up to and with this op.
    pub chain: Chain,
    /// Where it came from; `None` if it was authored here or salvaged in a reset.
    pub origin: Option<Origin>,
}

/// Which document: a name of 1 to 255 bytes without `@` and control characters, a branch and a scope of 1 to 64
/// characters `[A-Za-z0-9._-]` each. Written `name@branch/scope`, or just `name` for branch `main`, scope `global`.
///
/// Cloning is cheap.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct DocumentId(Arc<str>);

/// The branch of a document that names none.
pub const DEFAULT_BRANCH: &str = "main";
/// The scope of a document that names none.
pub const DEFAULT_SCOPE: &str = "global";
/// The longest name of a document, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// The longest branch or scope, in bytes.
pub const PART_BYTES_MAX: usize = 64;

impl DocumentId {
    /// The document of this name, branch and scope.
    ///
    /// # Errors
    /// If one of the three is too long or has characters that it may not have.
    pub fn new(name: &str, branch: &str, scope: &str) -> Result<Self, BadDocumentId> {
        let name_ok = (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(|c| c == '@' || c.is_control());
        if !name_ok {
            return Err(BadDocumentId::Name);
        }
        let part_ok = |part: &str| {
            (1..=PART_BYTES_MAX).contains(&part.len())
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        };
        if !part_ok(branch) {
            return Err(BadDocumentId::Branch);
        }
        if !part_ok(scope) {
            return Err(BadDocumentId::Scope);
        }
        Ok(Self(alloc::format!("{name}@{branch}/{scope}").into()))
    }

    fn split(&self) -> (&str, &str, &str) {
        let (name, rest) = self.0.split_once('@').unwrap_or((&self.0, ""));
        let (branch, scope) = rest.split_once('/').unwrap_or((rest, ""));
        (name, branch, scope)
    }

    /// The name.
    pub fn name(&self) -> &str {
        self.split().0
    }

    /// The branch.
    pub fn branch(&self) -> &str {
        self.split().1
    }

    /// The scope.
    pub fn scope(&self) -> &str {
        self.split().2
    }

    /// The full text, `name@branch/scope`, with nothing left out.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a text names no document.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BadDocumentId {
    /// The name is empty, over 255 bytes, or has an `@` or a control character.
    Name,
    /// The branch is empty, over 64 bytes, or has characters other than `[A-Za-z0-9._-]`.
    Branch,
    /// The scope is empty, over 64 bytes, or has characters other than `[A-Za-z0-9._-]`.
    Scope,
}

impl fmt::Display for BadDocumentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "a document's name has 1 to 255 bytes, no '@' and no control characters",
            Self::Branch => "a document's branch has 1 to 64 characters of A-Z, a-z, 0-9, '.', '_' and '-'",
            Self::Scope => "a document's scope has 1 to 64 characters of A-Z, a-z, 0-9, '.', '_' and '-'",
        })
    }
}

impl core::error::Error for BadDocumentId {}

impl FromStr for DocumentId {
    type Err = BadDocumentId;

    fn from_str(text: &str) -> Result<Self, BadDocumentId> {
        let (name, rest) = text.split_once('@').unwrap_or((text, DEFAULT_BRANCH));
        let (branch, scope) = rest.split_once('/').unwrap_or((rest, DEFAULT_SCOPE));
        Self::new(name, branch, scope)
    }
}

impl fmt::Display for DocumentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, branch, scope) = self.split();
        match (branch, scope) {
            (DEFAULT_BRANCH, DEFAULT_SCOPE) => f.write_str(name),
            (_, DEFAULT_SCOPE) => write!(f, "{name}@{branch}"),
            _ => f.write_str(&self.0),
        }
    }
}

impl fmt::Debug for DocumentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for DocumentId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Three strings; the defaults travel as empty ones.
        let (name, branch, scope) = self.split();
        let unless = |part, default| if part == default { "" } else { part };
        (name, unless(branch, DEFAULT_BRANCH), unless(scope, DEFAULT_SCOPE)).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for DocumentId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (name, branch, scope) = <(String, String, String)>::deserialize(deserializer)?;
        let or = |part: String, default: &str| if part.is_empty() { default.to_string() } else { part };
        Self::new(&name, &or(branch, DEFAULT_BRANCH), &or(scope, DEFAULT_SCOPE)).map_err(serde::de::Error::custom)
    }
}
