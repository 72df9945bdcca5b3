//! One end: a session, and a host with documents in memory that answers at once, or later.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use antiphon::Instant;
use antiphon::codes::Code;
use antiphon::heads::Judgement;
use antiphon::log::Log;
use antiphon::op::{Body, Cursor, DocumentId, ReplicaId, Timeline};
use antiphon::session::{Config, Input, Live, Local, Opening, Output, Session};
use antiphon::timeline::Opens;
use antiphon::wire::Access;
use antiphon::wire::changes::pack;
use bytes::Bytes;

use crate::input::Reader;

/// Documents of both ends; the subject's numbers are 0 to 2, the peer's 10 to 12.
pub(crate) const NAMES: [&str; 3] = ["one", "two", "three"];

/// A session with a host that answers at once, or later.
pub(crate) struct End {
    pub(crate) name: &'static str,
    pub(crate) session: Session,
    pub(crate) heard_at: Instant,
    pub(crate) replica: ReplicaId,
    pub(crate) timeline: Timeline,
    pub(crate) documents: BTreeMap<u32, (Log, Option<Cursor>)>,
    pub(crate) credit: u64,
    pub(crate) op: u64,
    pub(crate) outbox: VecDeque<Bytes>,
    /// Frames sent before, for replays.
    pub(crate) history: VecDeque<Bytes>,
    /// Questions that the host has not answered.
    pub(crate) questions: VecDeque<Output>,
    pub(crate) defers: bool,
    pub(crate) reopenings: u32,
    pub(crate) loads: u32,
    pub(crate) closed: bool,
}

impl End {
    pub(crate) fn new(name: &'static str, config: Config, nonce: u64, input: &mut Reader<'_>) -> Self {
        let id = nonce as u8;
        let replica = ReplicaId([id; 16]);
        let mut opens = Opens::first(Timeline::new(u64::from(id) << 8 | 1));
        opens.reopen(Timeline::new(u64::from(id) << 8 | 2));
        let (timeline, previous) = (opens.current(), opens.previous());
        let local = Local { replica, timeline, previous, nonce, token: None };
        let opens = Arc::new(opens);
        let first = if id == 1 { 0 } else { 10 };
        let documents = (first..).take(NAMES.len()).map(|number| (number, (Log::new(opens.clone()), None))).collect();
        let (credit, op) = (u64::from(config.limits.credit), u64::from(config.limits.op));
        let defers = input.below(4) == 3;
        let session = Session::new(Instant::ZERO, config, local);
        Self {
            name,
            session,
            heard_at: Instant::ZERO,
            replica,
            timeline,
            documents,
            credit,
            op,
            outbox: VecDeque::new(),
            history: VecDeque::new(),
            questions: VecDeque::new(),
            defers,
            reopenings: 0,
            loads: 0,
            closed: false,
        }
    }

    pub(crate) fn first(&self) -> u32 {
        self.documents.keys().next().copied().unwrap_or(0)
    }

    pub(crate) fn opening(&self, number: u32, thorough: bool) -> Option<Input> {
        let (log, cursor) = self.documents.get(&number)?;
        let name = NAMES[(number - self.first()) as usize];
        Some(Input::Open(Box::new(Opening {
            number,
            document: DocumentId::new(name, "main", "global").ok()?,
            access: Access::Write,
            grant: Access::Write,
            thorough,
            schema: None,
            history: log.history().clone(),
            horizon: 0,
            snapshot: None,
            tail: log.tail(),
            heads: log.heads().clone(),
            cursor: *cursor,
        })))
    }

    pub(crate) fn number_of(&self, document: &DocumentId) -> Option<u32> {
        let index = NAMES.iter().position(|name| *name == document.name())?;
        Some(self.first() + index as u32)
    }

    /// What the host answers to a question, if it can.
    pub(crate) fn answer(&mut self, question: Output) -> Option<Input> {
        match question {
            Output::Authenticate { .. } => Some(Input::Authenticated(Ok(()))),
            Output::Load { number, from, max_cost } => {
                let (log, _) = self.documents.get_mut(&number)?;
                let chunk = log.read(from, max_cost.min(2000))?;
                Some(Input::Loaded { number, chunk })
            }
            Output::Compare { number, heads } => {
                let comparison = self.documents.get(&number)?.0.compare(&heads)?;
                Some(Input::Compared { number, comparison })
            }
            Output::Take { number, origin, timeline, to, ops, .. } => {
                let (log, cursor) = self.documents.get_mut(&number)?;
                if ops.into_iter().any(|op| log.take(op, Some(origin)) == Judgement::Gap) {
                    return Some(Input::Close { number, code: Code::AUTHOR_GAP, reason: String::new() });
                }
                *cursor = Some(Cursor { timeline, position: to });
                let (tail, digest) = (log.tail(), log.heads().digest());
                Some(Input::Advance { number, tail, digest, held: to, live: None })
            }
            _ => None,
        }
    }

    /// The host writes an op of `len` bytes, or of as many as it may, and packs it for its session if it is to be `live`.
    pub(crate) fn write(&mut self, number: u32, len: usize, live: bool) -> Option<Input> {
        let len = len.min(self.op as usize);
        let held = self.session.held(number).map_or(0, |held| held.position);
        let (log, _) = self.documents.get_mut(&number)?;
        let (from, begins) = (log.tail(), log.history().current().begins);
        log.append(self.replica, Body::Bytes(vec![len as u8; len].into()));
        let (tail, digest) = (log.tail(), log.heads().digest());
        let packed = log.read(from, u64::MAX).filter(|_| live).and_then(|chunk| {
            let ops = chunk.entries.iter().map(|entry| &entry.op);
            pack(number, begins, from, ops, |id| chunk.authors[&id], 60_000, |_| tail)
        });
        let live = packed.map(|(packed, _)| Live::Packed([packed].into()));
        Some(Input::Advance { number, tail, digest, held, live })
    }
}
