//! How a session behaves, and who this end is.

use core::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::op::{ReplicaId, Timeline};
use crate::wire::{Durability, Limits};

/// What carries the frames.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum Transport {
    /// Frames arrive whole, once and in order, or the link is gone: WebSockets, memory.
    Reliable,
    /// Frames may be lost, doubled, late or damaged. The largest has `mtu` bytes, at least 576.
    Datagram {
        /// Bytes of the largest frame.
        mtu: u16,
    },
}

/// How a session behaves. The defaults suit WebSockets between a server and its clients.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Config {
    /// What carries the frames.
    pub transport: Transport,
    /// What is taken from the peer at most. Stated in Hello; frames sent keep to `limits.frame` too.
    pub limits: Limits,
    /// What acknowledgements promise. Stated in Welcome.
    pub durability: Durability,
    /// How long an acknowledgement may wait for company. Default 25 ms.
    pub ack_delay: Duration,
    /// How long nothing may be heard before a Ping. Default 10 s.
    pub ping_after: Duration,
    /// How long nothing may be heard before the session ends. Default 25 s.
    pub silence_max: Duration,
    /// How long the handshake may take. Default 10 s.
    pub handshake_max: Duration,
}

/// Bytes that a peer may send before it is welcome.
pub const BYTES_BEFORE_WELCOME: u64 = 16 * 1024;

/// The smallest frame limit, of a peer or an MTU: control messages must fit.
pub const FRAME_BYTES_MIN: u32 = 576;

impl Default for Config {
    fn default() -> Self {
        Self {
            transport: Transport::Reliable,
            limits: Limits::default(),
            durability: Durability::default(),
            ack_delay: Duration::from_millis(25),
            ping_after: Duration::from_secs(10),
            silence_max: Duration::from_secs(25),
            handshake_max: Duration::from_secs(10),
        }
    }
}

impl Default for Limits {
    /// Frames of 64 KiB, ops of 32 MiB, 256 KiB outstanding a document and 1 MiB a link, 16,384 documents, 65,536
    /// authors a document.
    fn default() -> Self {
        Self { frame: 64 << 10, op: 32 << 20, window: 256 << 10, credit: 1 << 20, documents: 16_384, authors: 65_536 }
    }
}

/// Who this end is, as it says in Hello.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Local {
    /// The replica.
    pub replica: ReplicaId,
    /// The timeline of this open of the replica.
    pub timeline: Timeline,
    /// The timeline of the open before.
    pub previous: Option<Timeline>,
    /// 64 random bits, drawn for this session and no other.
    pub nonce: u64,
    /// Proof of who it is.
    pub token: Option<Bytes>,
}
