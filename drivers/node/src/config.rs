//! How a node and its links behave.

use std::sync::Arc;
use std::time::Duration;

use antiphon::{replica, retry::Backoff};
use antiphon_recorder::Ring;
use bytes::Bytes;

/// How a node behaves.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Config {
    /// How its replica behaves. `replica.session.durability` is what peers are told that the storage promises.
    pub replica: replica::Config,
    /// Bytes of frames that wait for a link's transport before the replica sends no more ops there. At least two frames
    /// are taken, whatever this says. Default 256 KiB.
    pub outbox_bytes: u64,
    /// Bytes of frames that wait for a link's transport before nothing more is read from it: who asks and never listens
    /// is not answered without end. It must leave room for the heads of a document, which no credit holds back:
    /// 26 bytes an author. Default 4 MiB.
    pub outbox_bytes_max: u64,
    /// How long a transport may take nothing at all before its link is cut. Default 30 s.
    pub write_deadline: Duration,
    /// How long a link that is over may take over a frame that it still has to send, and as long again to see the peer
    /// close. Default 5 s.
    pub close_deadline: Duration,
    /// How long a shutdown waits for the storage. Default 30 s.
    pub drain_deadline: Duration,
    /// Events that wait for one subscriber; the oldest beyond are left out, and it is told how many. Default 1,024.
    pub events_max: usize,
    /// Bytes of ops in those events. Default 8 MiB.
    pub events_bytes_max: u64,
    /// Questions that wait for the host. Those beyond are answered in the negative. Default 4,096.
    pub questions_max: usize,
    /// Where the replica is recorded, from its first moment on. Default: nowhere.
    pub record: Option<Ring>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            replica: replica::Config::default(),
            outbox_bytes: 256 << 10,
            outbox_bytes_max: 4 << 20,
            write_deadline: Duration::from_secs(30),
            close_deadline: Duration::from_secs(5),
            drain_deadline: Duration::from_secs(30),
            events_max: 1024,
            events_bytes_max: 8 << 20,
            questions_max: 4096,
            record: None,
        }
    }
}

/// What a link is to this replica.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct LinkOptions {
    /// Proof of who we are, for the peer's host. It travels in clear, unless the transport encrypts.
    pub token: Option<Bytes>,
    /// The peer is the authority of the documents opened with
    /// [`Authority::Upstream`](antiphon::replica::Authority::Upstream).
    pub upstream: bool,
    /// Who is at the other end, as far as whoever made the connection knows: a user, a certificate's name. The host may
    /// want it for its answers: [`Node::principal`](crate::Node::principal).
    pub principal: Option<Arc<str>>,
}

/// When a link that ended is connected again.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RedialPolicy {
    /// The wait after the first failure; it doubles with each failure more. Between half and all of it is waited, by
    /// chance. Default 200 ms.
    pub base: Duration,
    /// The longest wait. A peer that says when to come back is obeyed even if that is later. Default 30 s.
    pub cap: Duration,
    /// A session that was live for this long was a healthy one: the failures before it are forgotten. Default 10 s.
    pub healthy_after: Duration,
}

impl Default for RedialPolicy {
    fn default() -> Self {
        Self { base: Duration::from_millis(200), cap: Duration::from_secs(30), healthy_after: Duration::from_secs(10) }
    }
}

impl RedialPolicy {
    pub(crate) fn backoff(&self) -> Backoff {
        Backoff::new(self.base, self.cap)
    }
}
