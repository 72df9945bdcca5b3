//! Opening and closing documents on a session, and finding out where each end starts in its log.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::receiving::{POSITION_MAX, Receiving};
use super::sending::Sending;
use super::snapshots::{Offer, Offered};
use super::start::{Side, Start};
use super::{By, Event, Misuse, Opening, Session};
use crate::codes::Code;
use crate::heads::Heads;
use crate::op::{Cursor, DocumentId, NAME_BYTES_MAX, Origin, ReplicaId, Timeline};
use crate::small::SmallMap;
use crate::snapshot::SnapshotId;
use crate::time::Instant;
use crate::wire::control::OwnTimelines;
use crate::wire::{Access, End, Malformed, Message, Open, Resume};

/// One document on one session.
#[derive(Clone, Debug, Hash)]
pub(super) struct Document {
    pub(super) id: DocumentId,
    pub(super) stage: Stage,
    pub(super) access: Access,
    pub(super) grant: Access,
    pub(super) begins: u64,
    pub(super) digest: u64,
    pub(super) sending: Sending,
    pub(super) receiving: Receiving,
    /// What the peer said in its Open, once both ends have the document open.
    pub(super) theirs: Option<Theirs>,
    /// What is needed until both ends know where they start.
    pub(super) resuming: Option<Box<Resuming>>,
    /// Our snapshot was offered.
    pub(super) offered: Option<Offered>,
    /// The peer's was.
    pub(super) offer: Option<Box<Offer>>,
    /// Where the peer stands, as it said last when it believed to be in step: `(held, tail, digest)`.
    pub(super) peer_level: Option<(u64, u64, u64)>,
    /// The same of us, as the peer was told last.
    pub(super) told_level: Option<(u64, u64, u64)>,
    /// When the peer was told so, or asked since whether it means the same, and how often it was asked.
    pub(super) told: Told,
    /// The level at which the host was told that both are in step.
    pub(super) in_step: Option<(u64, u64, u64)>,
    /// What the peer does with the document.
    pub(super) peer_access: Access,
    /// A fork was found, here or there: the digests differ until it is mended.
    pub(super) forked: bool,
    /// The peer's word of it is here, and the host was told: whatever the host does about it, both ends know.
    pub(super) fork_told: bool,
    /// The authors that were found here.
    pub(super) forks: Vec<ReplicaId>,
    /// The peer's turn when both ends had it open: changes of an earlier one belong to an earlier opening.
    pub(super) turn: u32,
}

/// How it went with telling the peer that both are in step.
#[derive(Clone, Copy, Debug, Default, Hash)]
pub(super) struct Told {
    pub(super) at: Instant,
    pub(super) tries: u32,
}

/// How far a document is open.
#[derive(Clone, Debug, Hash)]
pub(super) enum Stage {
    /// Our Open is sent.
    Opening,
    /// Both Opens are here.
    Open,
    /// Our Close is sent and not yet answered.
    Closing,
}

/// What stays of the peer's Open.
#[derive(Clone, Debug, Hash)]
pub(super) struct Theirs {
    pub(super) number: u32,
    pub(super) timeline: Timeline,
    pub(super) origin: Origin,
    pub(super) begins: u64,
}

/// What is needed until both ends know where they start.
#[derive(Clone, Debug, Hash)]
pub(super) struct Resuming {
    pub(super) opening: Opening,
    /// The heads that have come so far, and the last author among them.
    pub(super) incoming: Heads,
    pub(super) incoming_last: Option<ReplicaId>,
    /// The heads that have not gone yet: whether there are any, after which author, how many went before.
    pub(super) outgoing: Option<(Option<ReplicaId>, u32)>,
    /// The heads that the host was asked to compare.
    pub(super) comparing: Option<Arc<Heads>>,
}

/// The longest name of a schema, in bytes: an Open must fit the smallest frame.
const SCHEMA_BYTES_MAX: usize = 64;

/// A reason that is sure to fit a frame.
pub(super) fn brief(reason: &str) -> String {
    const REASON_BYTES_MAX: usize = 128;
    reason[..reason.floor_char_boundary(REASON_BYTES_MAX)].to_string()
}

impl Document {
    pub(super) fn peer_timeline(&self) -> Option<Timeline> {
        self.theirs.as_ref().map(|theirs| theirs.timeline)
    }

    /// How far the peer's log is durable here. Of one that only reads it is not known: it starts at its tail.
    pub(super) fn held(&self) -> Option<Cursor> {
        self.receiving.taken.filter(|_| self.peer_access == Access::Write)?;
        Some(Cursor { timeline: self.peer_timeline()?, position: self.receiving.held })
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open)
    }

    pub(super) fn is_closing(&self) -> bool {
        matches!(self.stage, Stage::Closing)
    }

    /// Our snapshot, until both ends know where they start: as long as it may be offered.
    pub(super) fn snapshot(&self) -> Option<SnapshotId> {
        self.resuming.as_ref().and_then(|resuming| resuming.opening.snapshot)
    }

    pub(super) fn sends_heads(&self) -> bool {
        self.resuming.as_ref().is_some_and(|resuming| resuming.outgoing.is_some())
    }
}

impl Session {
    // ---------------------------------------------------------------------------------------- what the host does

    pub(super) fn open(&mut self, opening: Opening) -> Result<(), Misuse> {
        if let Some(number) = self.numbers.get(&opening.document).copied() {
            return Err(Misuse::AlreadyOpen(number));
        }
        if self.documents.contains_key(&opening.number) {
            return Err(Misuse::AlreadyOpen(opening.number));
        }
        if opening.schema.as_ref().is_some_and(|schema| schema.name.len() > SCHEMA_BYTES_MAX) {
            return Err(Misuse::SchemaTooLong);
        }
        let theirs = self.waiting.remove(&opening.document);
        let number = opening.number;
        self.link.forget_outputs(number);
        let current = opening.history.current();
        let sending = Sending::new(opening.tail, 0, 0);
        let document = Document {
            id: opening.document.clone(),
            stage: Stage::Opening,
            access: opening.access,
            grant: opening.grant,
            begins: current.begins,
            digest: opening.heads.digest(),
            sending,
            receiving: Receiving::default(),
            theirs: None,
            resuming: Some(Box::new(Resuming {
                opening,
                incoming: Heads::new(),
                incoming_last: None,
                outgoing: None,
                comparing: None,
            })),
            offered: None,
            offer: None,
            peer_level: None,
            told_level: None,
            told: Told::default(),
            in_step: None,
            peer_access: Access::Write,
            forked: false,
            fork_told: false,
            forks: Vec::new(),
            turn: 0,
        };
        self.numbers.insert(document.id.clone(), number);
        self.documents.insert(number, Box::new(document));
        if self.has_accepted() {
            self.send_open(number);
            if let Some(theirs) = theirs {
                self.pair(number, *theirs);
            }
        } else if let Some(theirs) = theirs {
            self.waiting.insert(theirs.document.clone(), theirs);
        }
        Ok(())
    }

    /// The peer may come in: sends the Opens that waited for that, and takes up those of the peer.
    pub(super) fn open_waiting(&mut self) {
        let opening: Vec<_> = self.documents.keys().copied().collect();
        opening.into_iter().for_each(|number| self.send_open(number));
        for (_, open) in core::mem::take(&mut self.waiting) {
            self.on_open(*open);
        }
    }

    /// The peer is another one: it knows nothing of what is open, or was closed.
    pub(super) fn start_over(&mut self) {
        self.link.forget_control();
        self.peer_turn = (0, false);
        self.waiting.clear();
        let closing = self.documents.iter().filter(|(_, document)| document.is_closing());
        let closing: Vec<_> = closing.map(|(number, _)| *number).collect();
        for document in closing.into_iter().filter_map(|number| self.remove(number)).collect::<Vec<_>>() {
            self.event(Event::Released { document: document.id });
        }
    }

    fn send_open(&mut self, number: u32) {
        let (Some(peer), Some(document)) = (&self.peer, self.documents.get(&number)) else { return };
        let Some(Resuming { opening, .. }) = document.resuming.as_deref() else { return };
        let (current, previous) = (opening.history.current(), opening.history.previous());
        let as_in_hello = current.timeline == self.local.timeline && previous == self.local.previous;
        let open = Open {
            number,
            document: document.id.clone(),
            access: document.access,
            thorough: opening.thorough,
            schema: opening.schema.clone(),
            timelines: (!as_in_hello).then_some(OwnTimelines { current: current.timeline, previous }),
            begins: current.begins,
            horizon: opening.horizon,
            tail: opening.tail,
            digest: opening.heads.digest(),
            cursor: opening.cursor.map(Into::into),
            own: opening.heads.get(peer.hello.replica).into(),
            acks: self.acks,
        };
        self.link.send_control(&Message::Open(open));
    }

    pub(super) fn deny(&mut self, document: DocumentId, code: Code, reason: String) {
        if self.waiting.remove(&document).is_none() {
            return; // the peer has withdrawn meanwhile
        }
        self.link.send_control(&Message::Denied(End { document, code, reason: brief(&reason) }));
    }

    pub(super) fn close(&mut self, number: u32, code: Code, reason: String) -> Result<(), Misuse> {
        self.link.forget_outputs(number);
        let document = self.documents.get_mut(&number).ok_or(Misuse::NotOpen(number))?;
        if let Stage::Closing = document.stage {
            return Ok(());
        }
        let id = document.id.clone();
        self.release(number);
        if !self.has_accepted() {
            // The peer was told nothing of it, since it took the place of another: it would not answer.
            self.remove(number);
            self.event(Event::Released { document: id });
            return Ok(());
        }
        if let Some(document) = self.documents.get_mut(&number) {
            document.stage = Stage::Closing;
        }
        self.link.send_control(&Message::Close(End { document: id, code, reason: brief(&reason) }));
        Ok(())
    }

    /// Closes a document for a reason of ours, and tells the host.
    pub(super) fn close_for(&mut self, number: u32, code: Code, reason: &str) {
        if self.close(number, code, reason.to_string()).is_ok() {
            self.event(Event::DocumentClosed { number, code, reason: reason.to_string(), by: By::Us });
        }
    }

    /// Forgets what a document has under way, and leaves to the others what it had of the link.
    fn release(&mut self, number: u32) {
        let Some(document) = self.documents.get_mut(&number) else { return };
        let (outstanding, undurable) = (document.sending.outstanding.clear(), document.receiving.undurable.clear());
        document.sending = Sending::default();
        document.receiving = Receiving::default();
        document.resuming = None;
        (document.offered, document.offer) = (None, None);
        if let Some(theirs) = document.theirs.take() {
            self.by_peer.remove(theirs.number);
        }
        let part = self.parts_out.take_if(|(part, _)| *part == number);
        let claim = self.claim.take_if(|claim| *claim == number);
        self.parts_in.take_if(|part| *part == number);
        self.acks_due.remove(&number);
        self.heads_out.remove(&number);
        self.snapshots_out.remove(&number);
        self.outstanding -= outstanding;
        if outstanding > 0 || part.is_some() || claim.is_some() {
            self.wake_blocked();
        }
        self.undurable -= undurable;
        if undurable > 0 {
            self.state_credit();
        }
    }

    fn remove(&mut self, number: u32) -> Option<Box<Document>> {
        self.release(number);
        let document = self.documents.remove(&number)?;
        self.numbers.remove(&document.id);
        Some(document)
    }

    pub(super) fn forget_documents(&mut self) {
        let documents = core::mem::take(&mut self.documents);
        self.held_at_end = documents.iter().filter_map(|(number, state)| Some((*number, state.held()?))).collect();
        self.numbers.clear();
        self.by_peer = SmallMap::new();
        self.waiting.clear();
        self.ready.clear();
        self.blocked.clear();
        self.heads_out.clear();
        self.snapshots_out.clear();
        self.acks_due.clear();
        (self.outstanding, self.undurable) = (0, 0);
    }

    // ---------------------------------------------------------------------------------------- what the peer does

    pub(super) fn on_document_message(&mut self, message: Message, turn: u32) -> Result<(), Malformed> {
        match message {
            Message::Open(open) => self.on_open(open),
            Message::Denied(end) => self.on_end(end, false),
            Message::Close(end) => self.on_end(end, true),
            Message::Resume(resume) => self.on_resume(&resume),
            Message::Heads(part) => self.on_heads(part)?,
            Message::Fork(fork) => self.on_fork(&fork)?,
            Message::Author(author) => self.on_author(&author)?,
            Message::Snapshot(part) => self.on_snapshot(part),
            Message::SnapshotWanted(wanted) => self.on_snapshot_wanted(wanted),
            Message::Presence(_) | Message::Unknown(..) => {}
            _ if !self.is_live() => {
                // On datagrams Welcome may be late or lost; what came too early will be sent again.
                if !self.link.is_datagram() {
                    self.unexpected("changes came before Welcome");
                }
            }
            Message::Changes(changes) => self.on_changes(changes, turn)?,
            Message::Ack(ack) => self.on_ack(&ack)?,
            Message::Rewind(rewind) => self.on_rewind(&rewind)?,
            Message::ImmediateAck(wanted) => self.on_immediate_ack(wanted),
            Message::Credit(credit) => self.on_credit(&credit),
            _ => self.unexpected("a message has no place here"),
        }
        Ok(())
    }

    fn on_open(&mut self, open: Open) {
        if open.schema.as_ref().is_some_and(|schema| schema.name.len() > NAME_BYTES_MAX) {
            return self.end(Code::OVERSIZED, "the name of a schema is too long");
        }
        let known = self.numbers.get(&open.document).copied().filter(|_| self.has_accepted());
        if let Some(number) = known {
            match self.documents.get(&number).map(|document| &document.stage) {
                Some(Stage::Opening) => self.pair(number, open),
                // It does not know yet that we closed; our Close makes it answer with its own.
                Some(Stage::Closing) => {}
                _ => self.unexpected("a document was opened twice"),
            }
            return;
        }
        if open.schema.as_ref().is_some_and(|schema| schema.name.len() > SCHEMA_BYTES_MAX) {
            return self.unexpected("the schema's name is too long");
        }
        if self.waiting.len() + self.documents.len() >= self.config.limits.documents as usize {
            let (document, code) = (open.document, Code::TOO_MANY_DOCUMENTS);
            let reason = String::from("too many documents are open on this session");
            return self.link.send_control(&Message::Denied(End { document, code, reason }));
        }
        let event =
            Event::PeerOpened { document: open.document.clone(), access: open.access, schema: open.schema.clone() };
        if self.waiting.insert(open.document.clone(), Box::new(open)).is_some() {
            return self.unexpected("a document was opened twice");
        }
        if self.has_accepted() {
            self.event(event);
        }
    }

    /// Both Opens are here.
    fn pair(&mut self, number: u32, open: Open) {
        let (Some(peer), Some(document)) = (&self.peer, self.documents.get_mut(&number)) else { return };
        let Some(resuming) = document.resuming.as_deref_mut() else { return };
        document.turn = self.peer_turn.0;
        let opening = &resuming.opening;
        let own_timelines =
            open.timelines.map_or((peer.hello.timeline, peer.hello.previous), |own| (own.current, own.previous));
        let current = opening.history.current();
        let mine = Side {
            timeline: current.timeline,
            previous: opening.history.previous(),
            begins: current.begins,
            horizon: opening.horizon,
            tail: opening.tail,
            digest: opening.heads.digest(),
            cursor: opening.cursor,
            access: opening.access,
            thorough: opening.thorough,
            history: Some(&opening.history),
        };
        let theirs = Side {
            timeline: own_timelines.0,
            previous: own_timelines.1,
            begins: open.begins,
            horizon: open.horizon,
            tail: open.tail,
            digest: open.digest,
            cursor: open.cursor.map(Into::into),
            access: open.access,
            thorough: open.thorough,
            history: None,
        };
        if open.begins > open.tail || open.horizon > open.tail || open.tail > POSITION_MAX {
            return self.unexpected("a log begins after its tail, or ends nowhere");
        }
        if self.by_peer.contains(open.number) {
            return self.unexpected("one number stands for two documents");
        }
        let (out, back) = (mine.start_for(&theirs), theirs.start_for(&mine));
        let thorough = mine.thorough || theirs.thorough;
        let skipped = theirs.surely_holds(mine.cursor).filter(|_| !thorough);
        let skip_origin = skipped.map(|timeline| Origin::of(peer.hello.replica, timeline));
        let same_heads = !thorough && mine.digest == theirs.digest;
        let level = (theirs.tail, mine.tail, mine.digest);
        let ask_end = theirs.cursor.map(|cursor| {
            let end = mine.history.and_then(|history| history.end(cursor.timeline, mine.tail));
            end.map(|end| cursor.position.min(end)).filter(|position| *position >= opening.horizon)
        });
        let own = open.own.into();

        document.stage = Stage::Open;
        let (timeline, begins) = (theirs.timeline, theirs.begins);
        let origin = Origin::of(peer.hello.replica, timeline);
        document.theirs = Some(Theirs { number: open.number, timeline, origin, begins });
        // Entries may have become durable since our Open: they are live.
        let Sending { tail, awaited, .. } = core::mem::take(&mut document.sending);
        let grown = document.digest != mine.digest;
        document.sending = Sending::new(mine.tail, u64::from(peer.hello.limits.window), open.acks);
        (document.sending.tail, document.sending.awaited) = (tail, awaited);
        document.sending.skip_origin = skip_origin;
        document.sending.live_origin = Some(origin);
        document.peer_access = open.access;
        if same_heads {
            (document.in_step, document.told_level) = (Some(level), Some(level));
            document.peer_level = Some((mine.tail, theirs.tail, theirs.digest));
        }
        if back == Start::Heads {
            resuming.outgoing = Some((None, 0));
            self.heads_out.insert(number);
        }
        self.by_peer.insert(open.number, number);
        self.event(Event::Opened { number, own });
        match out {
            Start::TailLost => return self.close_for(number, Code::TAIL_LOST, "the peer holds more than this log has"),
            Start::At(position) => self.start_sending(number, position, false),
            Start::Ask => match ask_end.flatten() {
                Some(position) => self.start_sending(number, position, true),
                None => self.link.send_control(&Message::Resume(Resume { document: number, from: None })),
            },
            Start::Heads => {}
        }
        if let (Start::At(position), Some(document)) = (back, self.documents.get_mut(&number)) {
            document.receiving.start(position);
            self.settle_resuming(number);
        }
        // What has become durable here meanwhile the peer does not hold.
        if same_heads && !grown && self.documents.get(&number).is_some_and(|document| document.is_open()) {
            self.event(Event::InStep { number });
        }
    }

    pub(super) fn start_sending(&mut self, number: u32, position: u64, say: bool) {
        let Some(document) = self.documents.get_mut(&number) else { return };
        let horizon = document.resuming.as_ref().map_or(0, |resuming| resuming.opening.horizon);
        if position < horizon {
            return self.offer_snapshot(number);
        }
        document.sending.start(position);
        if say {
            self.link.send_control(&Message::Resume(Resume { document: number, from: Some(position) }));
        }
        let sends = document.access == Access::Write; // else it starts at its tail, whatever the peer holds
        self.settle_resuming(number);
        if position > 0 && sends {
            // The acknowledgement may have been lost with an earlier session: whoever waits for one is told here.
            self.event(Event::Acknowledged { number, acked: position });
        }
        self.wake(number);
    }

    /// Once both ends know where they start, what told them is no longer needed.
    pub(super) fn settle_resuming(&mut self, number: u32) {
        let Some(document) = self.documents.get_mut(&number) else { return };
        let settled =
            document.sending.started.is_some() && document.receiving.taken.is_some() && !document.sends_heads();
        if settled {
            document.resuming = None;
            if document.sending.skip().is_some() {
                self.acknowledge(number);
            }
            // Where neither end has anything to send, nothing else would make them compare.
            self.check_level(number);
        }
    }

    /// The peer's Close or Denied.
    fn on_end(&mut self, end: End, is_close: bool) {
        let End { document: id, code, reason } = end;
        let was_waiting = self.waiting.remove(&id).is_some();
        let Some(number) = self.numbers.get(&id).copied() else {
            if was_waiting && is_close {
                self.answer_close(id, code);
            }
            return;
        };
        let unpaired = self.documents.get(&number).is_some_and(|document| matches!(document.stage, Stage::Opening));
        if is_close && unpaired {
            if was_waiting {
                self.answer_close(id, code);
            }
            return; // it ends an opening of the peer's that was denied here, not the one that our Open asks for
        }
        let Some(document) = self.remove(number) else { return };
        match document.stage {
            Stage::Closing => self.event(Event::Released { document: id }),
            Stage::Opening | Stage::Open => {
                if is_close {
                    self.answer_close(id, code);
                }
                self.event(Event::DocumentClosed { number, code, reason, by: By::Peer });
            }
        }
    }

    fn answer_close(&mut self, document: DocumentId, code: Code) {
        self.link.send_control(&Message::Close(End { document, code, reason: String::new() }));
    }

    fn on_resume(&mut self, resume: &Resume) {
        let Some(number) = self.by_peer.get(resume.document).copied() else { return };
        let Some(document) = self.documents.get_mut(&number) else { return };
        if document.receiving.taken.is_some() {
            return self.unexpected("a start was said twice");
        }
        match (resume.from, document.resuming.as_deref_mut()) {
            (Some(position), _) if position <= POSITION_MAX => {
                document.receiving.start(position);
                self.settle_resuming(number);
            }
            (None, Some(resuming)) if resuming.outgoing.is_none() => {
                resuming.outgoing = Some((None, 0));
                self.heads_out.insert(number);
            }
            _ => self.unexpected("a start makes no sense"),
        }
    }
}
