//! The host of a victim that is a bare session.

use std::collections::BTreeMap;
use std::sync::Arc;

use antiphon::codes::Code;
use antiphon::heads::Judgement;
use antiphon::log::Log;
use antiphon::op::{Body, DocumentId, ReplicaId, Timeline};
use antiphon::session::{Ending, Event, Input, Misuse, Opening, Output};
use antiphon::timeline::Opens;
use antiphon::wire::Access;
use antiphon::{Instant, Machine, Session};
use bytes::Bytes;

use super::OWN_OPS;
use crate::common::doc;

/// The least that a session needs: documents in memory.
pub struct Host {
    pub now: Instant,
    /// Whether what peers send is never written.
    pub stalled: bool,
    pub ending: Option<Ending>,
    grant: Access,
    documents: BTreeMap<u32, Log>,
    next_number: u32,
}

impl Host {
    pub fn new(grant: Access) -> Self {
        let now = Instant::from_millis(1);
        Self { now, stalled: false, ending: None, grant, documents: BTreeMap::new(), next_number: 0 }
    }

    /// Answers all that the session asks, and collects the frames that it sends.
    pub fn settle(&mut self, session: &mut Session, frames: &mut Vec<Bytes>) {
        while let Some(output) = session.poll() {
            assert!(self.ending.is_none(), "nothing follows the end: {output:?}");
            if let Some(input) = self.answer(output, frames) {
                // The peer may have closed the document while the host was at it.
                let done = session.handle(self.now, input);
                assert!(matches!(done, Ok(()) | Err(Misuse::NotOpen(_))), "{done:?}");
            }
        }
    }

    pub fn log(&mut self, number: u32) -> &mut Log {
        self.documents.get_mut(&number).expect("it is open")
    }

    fn answer(&mut self, output: Output, frames: &mut Vec<Bytes>) -> Option<Input> {
        Some(match output {
            Output::Transmit(frame) => {
                frames.push(frame);
                return None;
            }
            Output::Authenticate { .. } => Input::Authenticated(Ok(())),
            Output::Event(Event::PeerOpened { document, .. }) => self.open(document),
            Output::Event(Event::Closed(ending)) => {
                self.ending = Some(ending);
                return None;
            }
            Output::Event(Event::DocumentClosed { number, .. }) => {
                self.documents.remove(&number);
                return None;
            }
            // It takes nothing that is not an op.
            Output::Event(Event::SnapshotOffered { number, .. }) => {
                self.documents.remove(&number);
                let (code, reason) = (Code::BELOW_HORIZON, String::from("snapshots are not taken here"));
                Input::Close { number, code, reason }
            }
            Output::Event(_) | Output::ReadSnapshot { .. } | Output::TakeSnapshot { .. } => return None,
            Output::Load { number, from, max_cost } => {
                let chunk = self.log(number).read(from, max_cost).expect("it is asked for what there is");
                Input::Loaded { number, chunk }
            }
            Output::Compare { number, heads } => {
                let comparison = self.log(number).compare(&heads).expect("it is all in memory");
                Input::Compared { number, comparison }
            }
            Output::Take { number, origin, to, ops, .. } => {
                if self.stalled {
                    return None;
                }
                let log = self.log(number);
                for op in ops {
                    if log.take(op, Some(origin)) == Judgement::Gap {
                        let reason = String::from("an op came before its author's earlier ones");
                        self.documents.remove(&number);
                        return Some(Input::Close { number, code: Code::AUTHOR_GAP, reason });
                    }
                }
                let (tail, digest) = (log.tail(), log.heads().digest());
                Input::Advance { number, tail, digest, held: to, live: None }
            }
        })
    }

    fn open(&mut self, document: DocumentId) -> Input {
        self.next_number += 1;
        let mut log = Log::new(Arc::new(Opens::first(Timeline::new(10))));
        for number in (0..OWN_OPS as u8).filter(|_| document == doc()) {
            log.append(ReplicaId([1; 16]), Body::Bytes(Bytes::from(vec![number; 20])));
        }
        let opening = Opening {
            number: self.next_number,
            document,
            access: Access::Write,
            grant: self.grant,
            thorough: false,
            schema: None,
            history: log.history().clone(),
            horizon: 0,
            snapshot: None,
            tail: log.tail(),
            heads: log.heads().clone(),
            cursor: None,
        };
        self.documents.insert(self.next_number, log);
        Input::Open(Box::new(opening))
    }
}
