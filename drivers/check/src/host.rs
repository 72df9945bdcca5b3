//! A bare [`Session`] with the smallest host that does all that one must: a log in memory, a disk, and one write after
//! the other in between.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::mem;
use std::sync::Arc;

use antiphon::codes::Code;
use antiphon::heads::{Heads, Judgement};
use antiphon::log::{Chunk, Log};
use antiphon::op::{Body, Cursor, Entry, Op, OpId, Origin, ReplicaId, Timeline};
use antiphon::session::{By, Config, Event, Input, Live, Local, Misuse, Opening, Output};
use antiphon::storage::{Batch, Continuity, Identity, Storage, Transaction};
use antiphon::timeline::History;
use antiphon::wire::changes::pack;
use antiphon::{Instant, Machine, Session};
use bytes::Bytes;

use crate::disk::Disk;
use crate::model::Broken;
use crate::network::laws::{FRONTIERS, GAP, ORDER, USE};
use crate::network::{Crash, Effect, Node, Outcome, Stimulus, document, entropy};

/// One end of one link.
#[derive(Clone, Debug)]
pub struct Host {
    config: Arc<Config>,
    number: usize,
    disk: Disk,
    clock: Instant,
    starts: u64,
    sessions: u64,
    up: Option<Up>,
}

impl Hash for Host {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // The configuration is the same in all states.
        (self.number, &self.disk, self.clock, self.starts, self.sessions, &self.up).hash(state);
    }
}

/// What is gone with the process.
#[derive(Clone, Debug, Hash)]
struct Up {
    identity: Identity,
    log: Log,
    /// The number of the document, in its current timeline.
    number: u32,
    /// The heads with what waits to be written.
    ahead: Heads,
    waiting: VecDeque<Pending>,
    session: Option<Session>,
    /// Whether the document was opened on the session and is not closed.
    open: bool,
    thorough: bool,
    forget_cursor: bool,
    in_step: Option<u64>,
    forked: bool,
}

/// What becomes durable together.
#[derive(Clone, Debug, Hash)]
struct Pending {
    entries: Vec<Entry>,
    cursor: Option<(ReplicaId, Cursor)>,
    /// The session that took it, and the number of the document there.
    taken_by: Option<(u64, u32)>,
}

impl Host {
    /// The `number`th host, on this disk, not started yet.
    pub fn new(number: usize, config: Config, disk: Disk) -> Self {
        let (clock, starts, sessions) = (Instant::ZERO, 0, 0);
        Self { config: Arc::new(config), number, disk, clock, starts, sessions, up: None }
    }

    fn start(&mut self) -> Result<(), crate::disk::Refused> {
        self.starts += 1;
        let identity = self.disk.open(Continuity::Proven, &mut entropy(self.number, self.starts))?;
        let stored = self.disk.document(&document())?;
        let opens = Arc::new(identity.opens.clone());
        let history = History::load(opens, stored.timelines, stored.forgotten, stored.tail);
        let log = Log::load(history, stored.heads.clone(), (stored.horizon, stored.snapshot), stored.tail);
        self.up = Some(Up {
            identity,
            log,
            number: 1,
            ahead: stored.heads,
            waiting: VecDeque::new(),
            session: None,
            open: false,
            thorough: false,
            forget_cursor: false,
            in_step: None,
            forked: false,
        });
        Ok(())
    }

    fn crash(&mut self, crash: Crash, effects: &mut Vec<Effect>) {
        if crash == Crash::KillAfterWrite {
            // The disk is the only one to do anything more.
            let mut done = Vec::new();
            self.write(&mut done);
            effects.extend(done.into_iter().filter(|effect| matches!(effect, Effect::Wrote(_) | Effect::Broken(_))));
        }
        self.up = None;
        if let Crash::PowerLoss(keep) = crash {
            self.disk.lose_power(keep);
        }
    }

    fn connect(&mut self) {
        let Some(up) = &mut self.up else { return };
        self.sessions += 1;
        let local = Local {
            replica: up.identity.replica,
            timeline: up.identity.opens.current(),
            previous: up.identity.opens.previous(),
            nonce: (self.number as u64 + 1) << 32 | self.sessions,
            token: None,
        };
        up.session = Some(Session::new(self.clock, Config::clone(&self.config), local));
        (up.open, up.in_step) = (false, None);
        (up.thorough, up.forget_cursor) = (false, false);
    }

    /// The session is over: what only skips moved is stored.
    fn disconnect(&mut self) {
        let Some(up) = &mut self.up else { return };
        let Some(session) = up.session.take() else { return };
        let (Some(peer), Some(held)) = (session.peer(), session.held(up.number)) else { return };
        let waiting = up.waiting.iter().rev().find_map(|pending| pending.cursor.map(|(_, cursor)| cursor));
        let stored = waiting.or_else(|| self.disk.cursor_on(&document(), peer));
        let ahead = |stored: Cursor| stored.timeline == held.timeline && stored.position >= held.position;
        if !stored.is_some_and(ahead) {
            up.waiting.push_back(Pending { entries: Vec::new(), cursor: Some((peer, held)), taken_by: None });
        }
    }

    fn append(&mut self, body: Bytes) {
        let Some(up) = &mut self.up else { return };
        let author = up.identity.replica;
        let body = Body::Bytes(body);
        let head = up.ahead.get(author).then(body.hash());
        up.ahead.set(author, head);
        let op = Op { id: OpId { author, seq: head.seq }, body };
        let entries = [Entry { op, chain: head.chain, origin: None }].into();
        up.waiting.push_back(Pending { entries, cursor: None, taken_by: None });
    }

    /// The disk carries out the oldest write.
    fn write(&mut self, effects: &mut Vec<Effect>) {
        let Some(up) = &mut self.up else { return };
        let Some(Pending { entries, cursor, taken_by }) = up.waiting.pop_front() else { return };
        let from = up.log.tail();
        let batch = Arc::new(Batch {
            document: document(),
            position: from,
            timeline: (!entries.is_empty()).then(|| up.log.history().current()),
            entries,
            cursors: cursor.into_iter().collect(),
            salvaged: None,
        });
        if let Err(refused) = self.disk.write(&Transaction::Append(batch.clone())) {
            return effects.push(Effect::Broken(Broken::new(ORDER, refused.to_string())));
        }
        effects.push(Effect::Wrote(batch.clone()));
        up.log.extend(&batch.entries);
        let own = batch.entries.iter().filter(|entry| entry.origin.is_none());
        effects.extend(own.map(|entry| Effect::Applied(entry.op.id)));
        let Some(session) = up.session.as_mut().filter(|_| up.open) else { return };
        let taken = cursor.filter(|_| taken_by == Some((self.sessions, up.number)));
        let known = session.held(up.number).map_or(0, |held| held.position);
        let held = taken.map_or(known, |(_, cursor)| known.max(cursor.position));
        let live = match batch.entries.first().map(|entry| entry.origin) {
            None => None,
            Some(Some(by)) => Some(Live::Brought { by, from, to: batch.tail() }),
            Some(None) => {
                let begins = up.log.history().current().begins;
                let (ops, log) = (batch.entries.iter().map(|entry| &entry.op), &mut up.log);
                let frame_max = self.config.limits.frame as usize;
                let to = |count| from + count as u64;
                let packed = pack(up.number, begins, from, ops, |id| log.author(id), frame_max, to);
                packed.map(|(packed, _)| Live::Packed([packed].into()))
            }
        };
        let (tail, digest) = (up.log.tail(), up.log.heads().digest());
        let done = session.handle(self.clock, Input::Advance { number: up.number, tail, digest, held, live });
        tell(done, effects);
    }

    /// Does what the session wants, until it wants nothing.
    fn drain(&mut self, effects: &mut Vec<Effect>) {
        while let Some(mut session) = self.up.as_mut().and_then(|up| up.session.take()) {
            let output = session.poll();
            let drained = output.is_none();
            let over = matches!(output, Some(Output::Event(Event::Closed(_))));
            let inputs = output.map_or(Vec::new(), |output| self.answer(&session, output, effects));
            for input in inputs {
                tell(session.handle(self.clock, input), effects);
            }
            let Some(up) = &mut self.up else { return };
            if let (Some(taken), Some(held)) = (session.taken(up.number), session.held(up.number))
                && taken.position < held.position
            {
                effects.push(Effect::Broken(Broken::new(FRONTIERS, format!("taken {taken:?}, held {held:?}"))));
            }
            up.session = Some(session);
            if over {
                self.disconnect();
            }
            if drained {
                return;
            }
        }
    }

    /// Does one thing that the session wants, and says what to tell it.
    fn answer(&mut self, session: &Session, output: Output, effects: &mut Vec<Effect>) -> Vec<Input> {
        let Some(up) = &mut self.up else { return Vec::new() };
        match output {
            Output::Transmit(frame) => effects.push(Effect::Transmit { link: 0, frame }),
            Output::Authenticate { .. } => {
                let accepted = Input::Authenticated(Ok(()));
                return [Some(accepted), up.opening(&self.disk, session)].into_iter().flatten().collect();
            }
            Output::Take { number, origin, timeline, from: _, to, ops } => {
                let taken_by = Some((self.sessions, number));
                up.take(session, taken_by, origin, Cursor { timeline, position: to }, ops, effects);
            }
            Output::Load { number, from, max_cost } => {
                let chunk = up.log.read(from, max_cost).or_else(|| {
                    let entries = self.disk.read(&document(), from, max_cost).ok()?;
                    Some(up.log.chunk(from, entries))
                });
                return chunk.map(|chunk: Chunk| Input::Loaded { number, chunk }).into_iter().collect();
            }
            Output::Compare { number, heads } => {
                let comparison = self.disk.compare(&document(), &heads).ok();
                return comparison.map(|comparison| Input::Compared { number, comparison }).into_iter().collect();
            }
            Output::Event(event) => return up.on_event(event, &self.disk, session, self.number, effects),
            // Nobody compacts here.
            Output::ReadSnapshot { .. } | Output::TakeSnapshot { .. } => {}
        }
        Vec::new()
    }
}

impl Up {
    /// Opens the document, unless it is open.
    fn opening(&mut self, disk: &Disk, session: &Session) -> Option<Input> {
        if mem::replace(&mut self.open, true) {
            return None;
        }
        let forget = mem::take(&mut self.forget_cursor) || self.thorough;
        let cursor = session.peer().and_then(|peer| disk.cursor_on(&document(), peer)).filter(|_| !forget);
        let opening = Opening { cursor, thorough: self.thorough, ..Opening::of(&self.log, document(), self.number) };
        Some(Input::Open(Box::new(opening)))
    }

    /// Ops of the peer's, whose log is held up to `cursor` with them: what is new is written.
    fn take(
        &mut self,
        session: &Session,
        taken_by: Option<(u64, u32)>,
        origin: Origin,
        cursor: Cursor,
        ops: Vec<Op>,
        effects: &mut Vec<Effect>,
    ) {
        let mut entries = Vec::new();
        for op in ops {
            let head = self.ahead.get(op.id.author);
            match head.judge(op.id.seq) {
                Judgement::Next => {
                    let head = head.then(op.body.hash());
                    self.ahead.set(op.id.author, head);
                    entries.push(Entry { op, chain: head.chain, origin: Some(origin) });
                }
                Judgement::Duplicate if self.identity.is_own(op.id.author) && self.log.heads().covers(op.id) => {
                    effects.push(Effect::Echo(op.id));
                }
                Judgement::Duplicate => {}
                Judgement::Gap => {
                    let detail = format!("{:?} is taken where {} ops of its author are held", op.id, head.seq);
                    return effects.push(Effect::Broken(Broken::new(GAP, detail)));
                }
            }
        }
        let cursor = session.peer().map(|peer| (peer, cursor));
        self.waiting.push_back(Pending { entries, cursor, taken_by });
    }

    fn on_event(
        &mut self,
        event: Event,
        disk: &Disk,
        session: &Session,
        host: usize,
        effects: &mut Vec<Effect>,
    ) -> Vec<Input> {
        match event {
            Event::Acknowledged { acked, .. } => effects.push(Effect::Acknowledged { link: 0, position: acked }),
            Event::InStep { .. } => {
                self.in_step = Some(self.log.heads().digest());
                effects.push(Effect::InStep { link: 0 });
            }
            Event::Forked { .. } => self.forked = true,
            Event::DocumentClosed { number, code, by, .. } => {
                self.open = false;
                self.thorough |= code == Code::MISMATCH || code == Code::SET_BACK;
                self.forget_cursor |= code == Code::AUTHOR_GAP;
                if code == Code::TAIL_LOST && by == By::Us {
                    self.number += 1;
                    self.log.begin(Timeline::new((host as u64 + 1) << 32 | u64::from(number) << 16));
                }
                if by == By::Peer {
                    return self.opening(disk, session).into_iter().collect();
                }
            }
            Event::Released { .. } => return self.opening(disk, session).into_iter().collect(),
            Event::Closed(ending) => effects.push(Effect::Ended { link: 0, ending }),
            Event::Connected { .. }
            | Event::PeerOpened { .. }
            | Event::Opened { .. }
            | Event::SnapshotOffered { .. } => {}
        }
        Vec::new()
    }
}

impl Node for Host {
    fn handle(&mut self, stimulus: Stimulus, effects: &mut Vec<Effect>) {
        let input = match stimulus {
            Stimulus::Start => {
                if let Err(refused) = self.start() {
                    effects.push(Effect::Broken(Broken::new(ORDER, refused.to_string())));
                }
                None
            }
            Stimulus::Crash(crash) => {
                self.crash(crash, effects);
                None
            }
            Stimulus::Connect { .. } => {
                self.connect();
                None
            }
            Stimulus::Disconnect { .. } => {
                self.disconnect();
                None
            }
            Stimulus::Append(body) => {
                self.append(body);
                None
            }
            Stimulus::Wait => {
                let open = self.up.as_ref().filter(|up| up.open);
                open.map(|up| Input::ImmediateAck { number: up.number })
            }
            Stimulus::Written(Outcome::Done) => {
                self.write(effects);
                None
            }
            Stimulus::Answer => None,     // it lets everyone in at once
            Stimulus::Written(_) => None, // this host has no word for a disk that fails
            Stimulus::Receive { frame, .. } => Some(Input::Received(frame)),
            Stimulus::Timer => {
                self.clock = self.deadline().map_or(self.clock, |deadline| deadline.max(self.clock));
                Some(Input::Timer)
            }
        };
        let session = self.up.as_mut().and_then(|up| up.session.as_mut());
        if let (Some(session), Some(input)) = (session, input) {
            tell(session.handle(self.clock, input), effects);
        }
        self.drain(effects);
    }

    fn is_up(&self) -> bool {
        self.up.is_some()
    }

    fn deadline(&self) -> Option<Instant> {
        self.up.as_ref()?.session.as_ref()?.deadline()
    }

    fn writes(&self) -> bool {
        self.up.as_ref().is_some_and(|up| !up.waiting.is_empty())
    }

    fn disk(&self) -> &Disk {
        &self.disk
    }

    fn author(&self) -> Option<ReplicaId> {
        self.up.as_ref().map(|up| up.identity.replica)
    }

    fn held(&self, _: usize) -> Option<(ReplicaId, Cursor)> {
        let up = self.up.as_ref()?;
        let session = up.session.as_ref()?;
        Some((session.peer()?, session.held(up.number)?))
    }

    fn in_step(&self, _: usize) -> Option<u64> {
        self.up.as_ref()?.in_step
    }

    fn is_forked(&self, _: usize) -> bool {
        self.up.as_ref().is_some_and(|up| up.forked)
    }

    fn is_busy(&self) -> bool {
        self.writes()
    }
}

/// What a host does wrong is wrong too.
fn tell(done: Result<(), Misuse>, effects: &mut Vec<Effect>) {
    if let Err(misuse) = done {
        effects.push(Effect::Broken(Broken::new(USE, misuse.to_string())));
    }
}
