//! The one repair for forks, damage and lost histories: a new identity, and documents rebuilt from their authority.
//!
//! A reset puts the document's entries aside, takes everything from the authority anew, and when both are in step goes
//! through what was put aside: what the authority has is dropped; what others authored and still fits is kept as it is;
//! own ops that do not fit are appended under the new id, or handed to the app; what does not fit and is not our own is
//! handed to the app. How far it got is stored with what it writes, so that a crash in between loses and doubles nothing.

use alloc::string::String;
use alloc::vec::Vec;

use super::{Asked, Authority, Event, LinkId, Misuse, Replica, Salvage};
use crate::codes::Code;
use crate::digest::Chain;
use crate::op::{DocumentId, Entry, Op, OpId, ReplicaId, Timeline};
use crate::storage::{Request, Transaction};
use crate::timeline::TimelineRecord;

/// How far a document is in being rebuilt.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Mending {
    stage: Stage,
    /// What was put aside and is not dealt with, as places in storage.
    aside: Option<(u64, u64)>,
    /// The authority, where the app chose one.
    source: Option<ReplicaId>,
}

#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
enum Stage {
    /// Nothing to mend, or nothing known of it.
    #[default]
    Whole,
    /// A reset waits for the write that is under way.
    Wanted,
    /// The reset is being written.
    Resetting,
    /// The document takes everything from the authority.
    Refetching,
    /// Both are in step: what was put aside is gone through.
    Salvaging,
}

impl Mending {
    /// The document was loaded, with these places put aside.
    pub(super) fn loaded(&mut self, aside: Option<(u64, u64)>) {
        self.aside = aside;
        self.stage = if aside.is_some() { Stage::Refetching } else { Stage::Whole };
    }

    pub(super) fn failed(&mut self) {
        self.stage = Stage::Whole; // loading tells
    }

    /// Whether appends may go into the log now.
    pub(super) fn takes_appends(&self) -> bool {
        !matches!(self.stage, Stage::Wanted | Stage::Resetting)
    }

    pub(super) fn is_resetting(&self) -> bool {
        !self.takes_appends()
    }

    pub(super) fn is_idle(&self) -> bool {
        matches!(self.stage, Stage::Whole | Stage::Refetching)
    }

    /// Whether the document may be open with this peer: until both are in step, only with the authority.
    pub(super) fn admits(&self, peer: ReplicaId, upstream: bool, authority: Authority) -> bool {
        self.stage != Stage::Refetching || self.is_source(peer, upstream, authority)
    }

    fn is_source(&self, peer: ReplicaId, upstream: bool, authority: Authority) -> bool {
        match (self.source, authority) {
            (Some(source), _) => source == peer,
            (None, Authority::Upstream) => upstream,
            // After a restart nothing tells whom the app chose.
            (None, Authority::Nobody | Authority::Us) => true,
        }
    }
}

/// How many of its former ids a replica remembers.
const FORMER_MAX: usize = 64;

impl Replica {
    // ---------------------------------------------------------------------------------------- identity

    /// Takes a new replica id. What was authored under the old one stays what it is.
    pub(super) fn renew(&mut self) {
        let before = self.identity.replica;
        let replica = ReplicaId(self.rng.bytes16());
        self.identity.replica = replica;
        self.identity.former.push(before);
        let excess = self.identity.former.len().saturating_sub(FORMER_MAX);
        self.identity.former.drain(..excess);
        // Storage is prefix-consistent: nothing authored under the new id is durable before the id is.
        self.write_identity();
        self.documents.values_mut().for_each(|document| document.reauthor(before, replica));
        self.event(Event::Renewed { replica, before });
        self.end_all(Code::RENEWED, "this replica has a new id");
    }

    pub(super) fn write_identity(&mut self) {
        let identity = self.identity.clone();
        self.request(Asked::Identity, Request::Write(Transaction::Identity(identity)));
    }

    fn is_own(&self, author: ReplicaId) -> bool {
        author == self.identity.replica || self.identity.former.contains(&author)
    }

    // ---------------------------------------------------------------------------------------- reset

    pub(super) fn reset_by_app(&mut self, document: &DocumentId, link: LinkId) -> Result<(), Misuse> {
        if !self.documents.get(document).is_some_and(|state| state.is_wanted()) {
            return Err(Misuse::NotOpen(document.clone()));
        }
        let peer = self.links.get(&link).and_then(|state| state.session.peer());
        let peer = peer.ok_or(Misuse::UnknownLink(link))?;
        self.reset(document, Some(peer));
        Ok(())
    }

    /// Puts the document's entries aside, to take it anew from its authority.
    pub(super) fn reset(&mut self, document: &DocumentId, source: Option<ReplicaId>) {
        let Some(state) = self.documents.get_mut(document) else { return };
        if state.mending.is_resetting() || state.log().is_none() {
            return;
        }
        state.mending.source = source;
        state.mending.stage = Stage::Wanted;
        // A new id at once: new appends then fit whatever the authority has.
        self.renew();
        self.close_on_all(document, Code::RESET, "the document is rebuilt from its authority");
        if let Some(state) = self.documents.get_mut(document) {
            state.withdraw(self.identity.replica);
        }
        self.reset_when_quiet(document);
    }

    /// Starts the reset once no write is under way.
    pub(super) fn reset_when_quiet(&mut self, document: &DocumentId) {
        let timeline = Timeline::new(self.rng.next_u64());
        let open = self.opens.count();
        let Some(state) = self.documents.get_mut(document) else { return };
        if state.mending.stage == Stage::Wanted && !state.is_writing() {
            state.mending.stage = Stage::Resetting;
            let timeline = TimelineRecord { open, timeline, begins: 0 };
            let request = Request::Write(Transaction::Reset { document: document.clone(), timeline });
            self.request(Asked::Reset(document.clone()), request);
        }
    }

    pub(super) fn reset_done(&mut self, document: &DocumentId) {
        let Some(state) = self.documents.get_mut(document) else { return };
        state.started_anew();
        self.reload(document);
    }

    // ---------------------------------------------------------------------------------------- salvage

    /// Both are in step: if that is the authority, what was put aside can be gone through.
    pub(super) fn salvage_from(&mut self, document: &DocumentId, link: LinkId) {
        let Some(peer) = self.links.get(&link).and_then(|state| Some((state.session.peer()?, state.upstream))) else {
            return;
        };
        let Some(state) = self.documents.get_mut(document) else { return };
        let authority = state.options().authority;
        if state.mending.stage == Stage::Refetching && state.mending.is_source(peer.0, peer.1, authority) {
            state.mending.stage = Stage::Salvaging;
            self.read_aside(document);
            self.attach_waiting(document);
        }
    }

    fn read_aside(&mut self, document: &DocumentId) {
        let max_cost = self.config.read_max;
        let Some(state) = self.documents.get_mut(document) else { return };
        match state.mending.aside {
            Some((from, _)) => {
                let request = Request::ReadAside { document: document.clone(), from, max_cost };
                self.request(Asked::Aside(document.clone()), request);
            }
            None => {
                state.mending.stage = Stage::Whole;
                self.event(Event::Mended { document: document.clone() });
            }
        }
    }

    pub(super) fn aside_read(&mut self, document: &DocumentId, entries: Vec<Entry>) {
        if entries.is_empty() {
            return self.fail(document, String::from("the storage lacks entries that were put aside"));
        }
        let ids = entries.iter().map(|entry| entry.op.id).collect();
        let request = Request::Chains { document: document.clone(), ids };
        self.request(Asked::AsideChains(document.clone(), entries), request);
    }

    /// Decides what becomes of entries that were put aside. `chains` are those of the new log at the same ids.
    pub(super) fn salvage(&mut self, document: &DocumentId, entries: Vec<Entry>, chains: &[Option<Chain>]) {
        let me = self.identity.replica;
        let own: Vec<_> = entries.iter().map(|entry| self.is_own(entry.op.id.author)).collect();
        let Some(state) = self.documents.get_mut(document) else { return };
        let Some((from, _)) = state.mending.aside.filter(|_| state.mending.stage == Stage::Salvaging) else { return };
        let place = from + entries.len() as u64;
        let appends = state.options().salvage == Salvage::Append;
        let mut orphans = Vec::new();
        for ((entry, chain), own) in entries.into_iter().zip(chains).zip(own) {
            let head = state.taken_head(entry.op.id.author);
            let held = entry.op.id.seq <= head.seq;
            let same = *chain == Some(entry.chain) || head.seq == entry.op.id.seq && head.chain == entry.chain;
            let fits = entry.op.id.seq == head.seq + 1 && head.then(entry.op.body.hash()).chain == entry.chain;
            if held && same {
                continue;
            } else if fits {
                state.push_own(entry.op);
            } else if own && appends && entry.op.body.bytes().is_some() {
                let seq = state.taken_head(me).seq + 1;
                state.push_own(Op { id: OpId { author: me, seq }, body: entry.op.body });
            } else {
                orphans.push(entry.op);
            }
        }
        state.salvaged_to(place);
        if !orphans.is_empty() {
            self.event(Event::Orphaned { document: document.clone(), ops: orphans });
        }
        self.write(document);
    }

    /// What was salvaged is durable: goes on with the rest.
    pub(super) fn salvaged(&mut self, document: &DocumentId, place: u64) {
        let Some(state) = self.documents.get_mut(document) else { return };
        state.mending.aside = state.mending.aside.map(|(_, to)| (place, to)).filter(|(from, to)| from < to);
        if state.mending.stage == Stage::Salvaging {
            self.read_aside(document);
        }
    }
}
