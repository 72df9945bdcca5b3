//! What storage and host were asked and have not answered.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::LinkId;
use crate::heads::{Head, Heads};
use crate::op::{DocumentId, Entry};
use crate::storage::Staged;

/// Stands for a question of the replica's: to its storage or to its host. Never repeats.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Ticket(u64);

/// A place in a log, as long as the document has this number.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct Reading {
    pub(super) document: DocumentId,
    pub(super) number: u32,
    pub(super) from: u64,
}

/// A document as it was opened on a link at some time. What was asked for it then is not for a later opening, which wants
/// other entries, or has other heads to be compared with.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct Opened {
    pub(super) link: LinkId,
    /// Counts the openings of the replica.
    pub(super) opening: u64,
}

/// What a ticket stands for.
#[derive(Clone, Debug, Hash)]
pub(super) enum Asked {
    Identity,
    Load(DocumentId),
    Cursor(DocumentId, LinkId),
    /// The sessions that wait for these entries.
    Read(Reading, Vec<Opened>),
    Compare(DocumentId, Opened),
    /// Whether a peer's head of our ops is in our history.
    Own(DocumentId, Opened, Head),
    Write(DocumentId),
    Reset(DocumentId),
    /// What was put aside from a place on, and then the chains in the log at the same ops.
    Aside(DocumentId, u64),
    AsideChains(DocumentId, u64, Vec<Entry>, Arc<Heads>),
    /// A document, under this number, is compacted; which snapshot it has now.
    Compact(DocumentId, u32),
    Horizon(DocumentId, u32),
    /// Bytes of the snapshot, for a session.
    Snapshot(DocumentId, Opened),
    /// With this piece so much of a snapshot is staged.
    Stage(DocumentId, Staged),
    Peer(LinkId),
    Document(LinkId, DocumentId),
}

/// What is asked and not answered, in the order of the tickets. Most answers come in that order too.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Tickets {
    asked: VecDeque<(Ticket, Option<Asked>)>,
    answered: usize,
    issued: u64,
}

impl Tickets {
    pub(super) fn issue(&mut self, asked: Asked) -> Ticket {
        self.issued += 1;
        let ticket = Ticket(self.issued);
        self.asked.push_back((ticket, Some(asked)));
        ticket
    }

    fn index(&self, ticket: Ticket) -> Option<usize> {
        if self.asked.front()?.0 == ticket {
            return Some(0);
        }
        self.asked.binary_search_by_key(&ticket, |(other, _)| *other).ok()
    }

    pub(super) fn get(&self, ticket: Ticket) -> Option<&Asked> {
        self.asked.get(self.index(ticket)?)?.1.as_ref()
    }

    pub(super) fn take(&mut self, ticket: Ticket) -> Option<Asked> {
        let index = self.index(ticket)?;
        if index > 0 {
            let asked = self.asked[index].1.take()?;
            self.answered += 1;
            self.forget_answered();
            return Some(asked);
        }
        let (_, asked) = self.asked.pop_front()?;
        while let Some((_, None)) = self.asked.front() {
            self.asked.pop_front();
            self.answered -= 1;
        }
        asked
    }

    /// Drops what is no longer worth an answer.
    pub(super) fn drop_where(&mut self, needless: impl Fn(&Asked) -> bool) {
        for (_, asked) in &mut self.asked {
            if asked.take_if(|asked| needless(asked)).is_some() {
                self.answered += 1;
            }
        }
        while let Some((_, None)) = self.asked.front() {
            self.asked.pop_front();
            self.answered -= 1;
        }
        self.forget_answered();
    }

    /// A question that is never answered must not keep the places of all that follow.
    fn forget_answered(&mut self) {
        if self.answered > self.asked.len() / 2 {
            self.asked.retain(|(_, asked)| asked.is_some());
            self.answered = 0;
        }
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Asked> {
        self.asked.iter_mut().filter_map(|(_, asked)| asked.as_mut())
    }
}

impl Asked {
    pub(super) fn document(self) -> Option<DocumentId> {
        match self {
            Self::Load(document)
            | Self::Cursor(document, _)
            | Self::Read(Reading { document, .. }, _)
            | Self::Compare(document, _)
            | Self::Own(document, ..)
            | Self::Write(document)
            | Self::Reset(document)
            | Self::Aside(document, _)
            | Self::AsideChains(document, ..)
            | Self::Compact(document, _)
            | Self::Horizon(document, _)
            | Self::Snapshot(document, _)
            | Self::Stage(document, _) => Some(document),
            Self::Identity | Self::Peer(_) | Self::Document(..) => None,
        }
    }
}
