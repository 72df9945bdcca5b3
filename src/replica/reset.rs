//! The one repair for forks, damage and lost histories: documents rebuilt from their authority, under a new id.
//!
//! A reset puts the document's entries aside, takes everything from the authority anew, and when both are in step goes
//! through what was put aside: what the authority has is dropped; what others authored and still fits is kept as it is;
//! own ops that do not fit are appended under the new id, or handed to the app; what does not fit and is not our own is
//! handed to the app. How far it got is stored with what it writes, so that a crash in between loses and doubles nothing.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use super::{Asked, Authority, Event, LinkId, Misuse, Replica, Salvage, Ticket};
use crate::codes::Code;
use crate::digest::Chain;
use crate::heads::{Head, Heads};
use crate::op::{DocumentId, Entry, Op, OpId, ReplicaId, Timeline};
use crate::session::{By, Session};
use crate::storage::{Request, Transaction};
use crate::time::Instant;
use crate::timeline::TimelineRecord;

/// How far a document is in being rebuilt.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Mending {
    stage: Stage,
    /// What was put aside and is not dealt with, as places in storage.
    aside: Option<Box<(u64, u64)>>,
    /// The authority, where the app chose one.
    source: Option<Box<Source>>,
}

/// A replica from which a document is taken anew. It may take a new id meanwhile, and is known by its timeline then.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct Source {
    replica: ReplicaId,
    timeline: Timeline,
}

impl Source {
    /// The peer of a session, once its Hello is here.
    pub(super) fn of(session: &Session) -> Option<Self> {
        Some(Self { replica: session.peer()?, timeline: session.peer_timeline()? })
    }

    /// Whether the peer of a session is this replica, in the same open of it or the next.
    fn is(&self, session: &Session) -> bool {
        let timelines = [session.peer_timeline(), session.peer_previous()];
        session.peer() == Some(self.replica) || timelines.contains(&Some(self.timeline))
    }
}

#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
enum Stage {
    /// Nothing to mend, or nothing known of it.
    #[default]
    Whole,
    /// It waits for the write that is under way.
    Wanted(Rebuild),
    /// It is being written, with this timeline.
    Resetting { rebuild: Rebuild, timeline: Timeline, ticket: Ticket, deadline: Instant },
    /// The document takes everything from the authority.
    Refetching,
    /// Both are in step: what was put aside is gone through.
    Salvaging,
}

/// How a document starts anew.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Rebuild {
    /// From nothing.
    Reset,
    /// From the snapshot that is staged.
    Install,
}

impl Mending {
    /// The document was loaded, with these places put aside, and these timelines.
    pub(super) fn loaded(&mut self, aside: Option<(u64, u64)>, timelines: &[TimelineRecord]) {
        self.aside = aside.map(Box::new);
        self.stage = match self.stage {
            Stage::Wanted(rebuild) => Stage::Wanted(rebuild),
            Stage::Resetting { timeline, .. } if timelines.iter().any(|record| record.timeline == timeline) => {
                Stage::Refetching
            }
            // It failed, and was not done. A snapshot is offered again.
            Stage::Resetting { rebuild: Rebuild::Reset, .. } => Stage::Wanted(Rebuild::Reset),
            Stage::Whole | Stage::Resetting { .. } if aside.is_none() => Stage::Whole,
            _ => Stage::Refetching,
        };
    }

    /// Whether a snapshot that was to be installed was not, if the document has these timelines.
    pub(super) fn refused_install(&self, timelines: &[TimelineRecord]) -> bool {
        let Stage::Resetting { rebuild: Rebuild::Install, timeline, .. } = self.stage else { return false };
        timelines.iter().all(|record| record.timeline != timeline)
    }

    /// The reset is written.
    pub(super) fn started_anew(&mut self) {
        self.stage = Stage::Refetching;
    }

    /// Whether appends may go into the log now.
    pub(super) fn takes_appends(&self) -> bool {
        !matches!(self.stage, Stage::Wanted(_) | Stage::Resetting { .. })
    }

    pub(super) fn is_resetting(&self) -> bool {
        !self.takes_appends()
    }

    /// The write of a reset that is under way, and how long it may take.
    pub(super) fn writing(&self) -> Option<(Ticket, Instant)> {
        match self.stage {
            Stage::Resetting { ticket, deadline, .. } => Some((ticket, deadline)),
            _ => None,
        }
    }

    /// Whether a reset waits until it can be written.
    pub(super) fn is_wanted(&self) -> bool {
        matches!(self.stage, Stage::Wanted(_))
    }

    pub(super) fn is_idle(&self) -> bool {
        matches!(self.stage, Stage::Whole | Stage::Refetching)
    }

    /// Whether nothing is put aside.
    pub(super) fn is_whole(&self) -> bool {
        self.stage == Stage::Whole
    }

    /// Whether the document may be open with the peer of a session: until both are in step, only with the authority.
    pub(super) fn admits(&mut self, session: &Session, upstream: bool, authority: Authority) -> bool {
        match self.stage {
            Stage::Whole | Stage::Salvaging => true,
            Stage::Wanted(_) | Stage::Resetting { .. } => false,
            Stage::Refetching => self.is_source(session, upstream, authority),
        }
    }

    fn is_source(&mut self, session: &Session, upstream: bool, authority: Authority) -> bool {
        match (&mut self.source, authority) {
            (Some(source), _) => {
                let now = Source::of(session).filter(|_| source.is(session));
                if let Some(now) = now {
                    **source = now;
                }
                now.is_some()
            }
            (None, Authority::Upstream) => upstream,
            // After a restart nothing tells whom the app chose.
            (None, Authority::Nobody | Authority::Us) => true,
        }
    }
}

impl Replica {
    // ---------------------------------------------------------------------------------------- reset

    pub(super) fn reset_by_app(&mut self, document: &DocumentId, link: LinkId) -> Result<(), Misuse> {
        if !self.documents.get(document).is_some_and(|state| state.is_wanted()) {
            return Err(Misuse::NotOpen(document.clone()));
        }
        let source = self.links.get(&link).and_then(|state| Source::of(&state.session));
        let source = source.ok_or(Misuse::UnknownLink(link))?;
        if self.peer_only_reads(link, document) {
            return Err(Misuse::NothingToTake(document.clone(), link));
        }
        self.reset(document, Some(source));
        Ok(())
    }

    /// Whether the document is open with a peer that only reads it, and so gives nothing.
    pub(super) fn peer_only_reads(&self, link: LinkId, document: &DocumentId) -> bool {
        let session = self.links.get(&link).map(|state| &state.session);
        let number = self.number_on(link, document);
        session.zip(number).is_some_and(|(session, number)| session.peer_only_reads(number))
    }

    /// An authority that only reads would be waited for in vain: it is told so, and the app too.
    pub(super) fn refuse_empty_source(&mut self, link: LinkId, number: u32) -> bool {
        let Some(document) = self.numbers.get(&number).cloned() else { return false };
        let refetches = self.documents.get(&document).is_some_and(|state| state.mending.stage == Stage::Refetching);
        let refused = refetches && self.peer_only_reads(link, &document);
        if refused {
            let (code, reason) = (Code::FORBIDDEN, "the document is rebuilt from the end that opened it to read only");
            self.close_on(link, &document, code, reason);
            self.detach(link, &document);
            self.event(Event::Closed { link, document, code, reason: reason.into(), by: By::Us });
        }
        refused
    }

    /// Puts the document's entries aside, to take it anew from its authority.
    pub(super) fn reset(&mut self, document: &DocumentId, source: Option<Source>) {
        let Some(state) = self.documents.get_mut(document) else { return };
        // Who asks again while it is being written may have another source in mind.
        state.mending.source = source.map(Box::new);
        if state.mending.is_resetting() {
            return;
        }
        state.mending.stage = Stage::Wanted(Rebuild::Reset);
        // A new id at once: new appends then fit whatever the authority has.
        self.renew();
        self.start_anew(document, "the document is rebuilt from its authority");
    }

    /// Puts the document's entries aside, to take it anew from the snapshot that is staged.
    pub(super) fn install(&mut self, document: &DocumentId, link: LinkId) {
        let Some(state) = self.documents.get_mut(document) else { return };
        state.incoming = None;
        state.mending.source = self.links.get(&link).and_then(|from| Source::of(&from.session)).map(Box::new);
        if state.mending.is_resetting() {
            return;
        }
        state.mending.stage = Stage::Wanted(Rebuild::Install);
        // New appends must not take the seqs of ops that are put aside.
        if state.log().is_some_and(|log| log.tail() > log.horizon()) || state.is_writing() {
            self.renew();
        }
        self.start_anew(document, "the document is rebuilt from a snapshot");
    }

    fn start_anew(&mut self, document: &DocumentId, reason: &str) {
        self.close_on_all(document, Code::RESET, reason);
        if let Some(state) = self.documents.get_mut(document) {
            state.withdraw(self.identity.replica);
        }
        self.reset_when_quiet(document);
    }

    pub(super) fn draw_timeline(&mut self) -> Timeline {
        Timeline::new(self.rng.next_u64())
    }

    /// Goes on with the resets that are wanted: the new id is durable.
    pub(super) fn reset_waiting(&mut self) {
        let wanted = self.documents.iter().filter(|(_, state)| state.mending.is_wanted());
        let wanted: Vec<_> = wanted.map(|(document, _)| document.clone()).collect();
        wanted.iter().for_each(|document| self.reset_when_quiet(document));
    }

    /// Starts a reset that is wanted, once the document is loaded, no write is under way, and the new id is durable: under
    /// the old one, what is appended to the new log could follow another history than what was put aside.
    pub(super) fn reset_when_quiet(&mut self, document: &DocumentId) {
        let open = self.opens.count();
        let Some(state) = self.documents.get_mut(document) else { return };
        let Stage::Wanted(rebuild) = state.mending.stage else { return };
        if state.log().is_none() || state.is_writing() {
            return;
        }
        if let Some((_, deadline)) = self.identity_write {
            return self.set_document_alarm(document, deadline);
        }
        let timeline = self.draw_timeline();
        let record = TimelineRecord { open, timeline, begins: 0 };
        let transaction = match rebuild {
            Rebuild::Reset => Transaction::Reset { document: document.clone(), timeline: record },
            Rebuild::Install => Transaction::Install { document: document.clone(), timeline: record },
        };
        let ticket = self.request(Asked::Reset(document.clone()), Request::Write(transaction));
        let deadline = self.now + self.config.write_deadline;
        if let Some(state) = self.documents.get_mut(document) {
            state.mending.stage = Stage::Resetting { rebuild, timeline, ticket, deadline };
        }
        self.set_document_alarm(document, deadline);
    }

    pub(super) fn reset_done(&mut self, document: &DocumentId) {
        let Some(state) = self.documents.get_mut(document) else { return };
        state.started_anew();
        self.reload(document);
    }

    // ---------------------------------------------------------------------------------------- salvage

    /// Both are in step: if that is the authority, what was put aside can be gone through.
    pub(super) fn salvage_from(&mut self, document: &DocumentId, link: LinkId) {
        let (Some(from), Some(state)) = (self.links.get(&link), self.documents.get_mut(document)) else { return };
        let authority = state.options().authority;
        let is_source = state.mending.is_source(&from.session, from.upstream, authority);
        if state.mending.stage == Stage::Refetching && is_source {
            state.mending.stage = Stage::Salvaging;
            self.read_aside(document);
            self.attach_waiting(document);
        }
    }

    fn read_aside(&mut self, document: &DocumentId) {
        let max_cost = self.config.read_max;
        let Some(state) = self.documents.get_mut(document) else { return };
        match state.mending.aside.as_deref().copied() {
            Some((from, _)) => {
                let request = Request::ReadAside { document: document.clone(), from, max_cost };
                self.request(Asked::Aside(document.clone(), from), request);
            }
            None => {
                state.mending.stage = Stage::Whole;
                self.event(Event::Mended { document: document.clone() });
            }
        }
    }

    /// Whether entries that were put aside from `from` on are still waited for: the storage may have failed meanwhile,
    /// or a reset may have begun.
    fn is_salvaging(&self, document: &DocumentId, from: u64) -> bool {
        self.documents.get(document).is_some_and(|state| {
            let next = state.mending.aside.as_deref().is_some_and(|(next, _)| *next == from);
            state.mending.stage == Stage::Salvaging && next && state.log().is_some()
        })
    }

    pub(super) fn aside_read(&mut self, document: &DocumentId, from: u64, entries: Vec<Entry>) {
        if !self.is_salvaging(document, from) {
            return;
        }
        if entries.is_empty() {
            return self.fail(document, String::from("the storage lacks entries that were put aside"));
        }
        // The chain before an op tells its body from another's where the chains differ.
        let ids = entries.iter().flat_map(|Entry { op: Op { id, .. }, .. }| [OpId { seq: id.seq - 1, ..*id }, *id]);
        let ids = ids.collect();
        let request = Request::Chains { document: document.clone(), ids };
        let held = self.documents.get(document).and_then(|state| state.log()).map(|log| log.heads().clone());
        self.request(Asked::AsideChains(document.clone(), from, entries, held.unwrap_or_default()), request);
    }

    /// Decides what becomes of entries that were put aside. `chains` are those of the new log, two an entry: before it
    /// and at it; `held` are its heads at the time.
    pub(super) fn salvage(
        &mut self,
        document: &DocumentId,
        from: u64,
        entries: Vec<Entry>,
        held: &Heads,
        chains: &[Option<Chain>],
    ) {
        if !self.is_salvaging(document, from) {
            return;
        }
        let me = self.identity.replica;
        let own: Vec<_> = entries.iter().map(|entry| self.identity.is_own(entry.op.id.author)).collect();
        let Some(state) = self.documents.get_mut(document) else { return };
        let mut place = from;
        let appends = state.options().salvage == Salvage::Append;
        let (mut ops, mut orphans) = (Vec::new(), Vec::new());
        // The heads with what is salvaged here.
        let mut heads = BTreeMap::new();
        for ((Entry { op, chain, .. }, there), own) in entries.into_iter().zip(chains.chunks_exact(2)).zip(own) {
            let head_of = |heads: &BTreeMap<_, Head>, author| {
                heads.get(&author).copied().unwrap_or_else(|| state.taken_head(author))
            };
            let head = head_of(&heads, op.id.author);
            let next = head.then(op.body.hash());
            let fits = (op.id.seq, chain) == (next.seq, next.chain);
            let mut displaced = !fits;
            if op.id.seq == head.seq && chain == head.chain {
                displaced = false;
            } else if op.id.seq <= head.seq {
                displaced = match there[1] {
                    // After a fork the same op may stand behind another history.
                    Some(at) => chain != at && there[0].unwrap_or(Chain::EMPTY).then(op.body.hash()) != at,
                    None if held.covers(op.id) => false, // the snapshot stands for it
                    None => break,                       // it is on its way: compared again when that is written
                };
            }
            if fits {
                heads.insert(op.id.author, next);
                ops.push(op);
            } else if displaced && own && appends && op.body.bytes().is_some() {
                let head = head_of(&heads, me).then(op.body.hash());
                heads.insert(me, head);
                ops.push(Op { id: OpId { author: me, seq: head.seq }, body: op.body });
            } else if displaced {
                orphans.push(op);
            }
            place += 1;
        }
        state.push_salvage(ops, place);
        if !orphans.is_empty() {
            self.event(Event::Orphaned { document: document.clone(), ops: orphans });
        }
        self.write(document);
    }

    /// What was salvaged is durable: goes on with the rest.
    pub(super) fn salvaged(&mut self, document: &DocumentId, place: u64) {
        let Some(state) = self.documents.get_mut(document) else { return };
        state.mending.aside.as_deref_mut().into_iter().for_each(|(from, _)| *from = place);
        state.mending.aside.take_if(|aside| aside.0 >= aside.1);
        if state.mending.stage == Stage::Salvaging {
            self.read_aside(document);
        }
    }
}
