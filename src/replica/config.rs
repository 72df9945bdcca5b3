//! How a replica behaves, and how an app opens a document.

use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::session;
use crate::wire::Access;
use crate::wire::control::Schema;

/// How a replica behaves.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Config {
    /// How its sessions behave; each link says what transport it is.
    pub session: session::Config,
    /// Who may connect. Default: everyone.
    pub peers: Admission,
    /// Which documents peers may open, and which peers have a part in those that the app opens. Default: any, and all.
    pub documents: Admission,
    /// Cost of the entries of a document that are kept in memory. Default 256 KiB.
    pub tail_max: u64,
    /// Cost of what is read from storage at once for one session. Default 128 KiB.
    pub read_max: u64,
    /// Reads under way at a time. Default 16.
    pub reads_max: usize,
    /// Cost of what waits for a document's storage, beyond which the app may not append, and the document is closed on
    /// sessions that bring more, until the storage has written. Default 64 MiB.
    pub waiting_max: u64,
    /// Bytes of a snapshot that is taken from a document's authority. Default 1 GiB.
    pub snapshot_max: u64,
    /// How long a write may take. Default 30 s.
    pub write_deadline: Duration,
    /// The first and the longest wait before a failed storage is tried again. Default 100 ms and 30 s.
    pub retry: (Duration, Duration),
    /// How long a document may be idle, with nobody having it open, before its memory is given back; or open, and not
    /// grow, before its entries in memory are. Default 60 s.
    pub idle_max: Duration,
    /// Documents in memory. While there are more, those that are idle are given back at once. Default 16,384.
    pub documents_max: usize,
    /// Sessions at a time. Default 16,384.
    pub sessions_max: usize,
    /// How long an older session may take to show that it is alive, when a newer one has the same replica id. Default 5 s.
    pub contest_max: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            session: session::Config::default(),
            peers: Admission::Open,
            documents: Admission::Open,
            tail_max: 256 << 10,
            read_max: 128 << 10,
            reads_max: 16,
            waiting_max: 64 << 20,
            snapshot_max: 1 << 30,
            write_deadline: Duration::from_secs(30),
            retry: (Duration::from_millis(100), Duration::from_secs(30)),
            idle_max: Duration::from_secs(60),
            documents_max: 16_384,
            sessions_max: 16_384,
            contest_max: Duration::from_secs(5),
        }
    }
}

/// How it is decided whether something may come in.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum Admission {
    /// It may.
    Open,
    /// The host is asked each time.
    Ask,
    /// It may not: only what the app itself opens, with every peer that is in.
    Closed,
}

/// Who decides what a document is, when histories differ.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum Authority {
    /// Nobody: forks are reported, and the app decides.
    #[default]
    Nobody,
    /// This replica: the others mend theirs.
    Us,
    /// The peer of a link that was connected as upstream: on a fork the document is rebuilt from it.
    Upstream,
}

/// What to do with own ops that are caught in a fork, when a document is rebuilt from its authority.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum Salvage {
    /// Append them again, under the new replica id.
    #[default]
    Append,
    /// Hand them to the app, in [`Event::Orphaned`](super::Event::Orphaned).
    HandOver,
}

/// How the app opens a document.
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Options {
    /// Whether ops are sent, or only received. Default: both.
    pub access: Access,
    /// The schema of the bodies.
    pub schema: Option<Schema>,
    /// Who decides in a fork. Default: nobody.
    pub authority: Authority,
    /// What happens to own ops then. Default: they are appended again.
    pub salvage: Salvage,
}
