//! Messages that might well come at some time, but not now.

use antiphon::codes::Code;
use antiphon::digest::{BodyHash, Chain};
use antiphon::heads::{Head, Heads};
use antiphon::op::{Body, Cursor, DocumentId, ReplicaId, Timeline};
use antiphon::snapshot::SnapshotId;
use antiphon::wire::control::pack_heads;
use antiphon::wire::{
    Access, Ack, Announce, Changes, Confirm, Content, Credit, End, Farewell, Fork, HeadsPart, ImmediateAck, Level,
    Message, Open, OwnTimelines, Ping, Point, Pong, Resume, Rewind, Run as OpRun, Skip, SnapshotPart, SnapshotWanted,
};

use crate::run::Run;

impl Run<'_> {
    pub(crate) fn document(&mut self) -> DocumentId {
        let names = ["one", "two", "three", "four"];
        let name = names[usize::from(self.input.below(4))];
        DocumentId::new(name, "main", "global").unwrap()
    }

    /// A number of one of the documents, the subject's or the peer's.
    fn document_number(&mut self) -> u32 {
        match self.input.below(16) {
            byte @ 0..6 => u32::from(byte % 3),
            byte @ 6..15 => 10 + u32::from(byte % 3),
            _ => self.input.number() as u32,
        }
    }

    fn point(&mut self) -> Point {
        let position = self.input.number();
        let offset = if self.input.byte() % 4 == 3 { self.input.number() as u32 } else { 0 };
        Point { position, offset }
    }

    /// A message that might well come at some time, but not now.
    pub(crate) fn message(&mut self) -> Message {
        let document = self.document_number();
        let number = self.input.number();
        let input = &mut self.input;
        match input.below(22) {
            0 | 1 => {
                let received = self.point();
                let input = &mut self.input;
                let skip = input.flag().then(|| Skip {
                    document: 10 + number as u32 % 3,
                    from: input.number(),
                    to: input.number(),
                });
                let level = input.flag().then(|| Level { tail: input.number(), digest: input.number() });
                let (held, window, credit) =
                    (input.number(), input.number().saturating_mul(50), input.number().saturating_mul(50));
                Message::Ack(Ack { document, number, received, held, window, credit, skip, level })
            }
            2 | 3 => {
                let (received, from) = (self.point(), self.point());
                let to = self.input.flag().then(|| self.point());
                Message::Rewind(Rewind { document, number, received, from, to })
            }
            4 => Message::Credit(Credit { number, total: input.number().saturating_mul(100) }),
            5 => Message::Ping(Ping { token: number, blocked: input.flag() }),
            6 if number % 2 == 0 => Message::Pong(Pong { token: number }),
            6 => Message::ImmediateAck(ImmediateAck { document, to: input.number() }),
            7 => {
                let author = ReplicaId([input.below(6); 16]);
                Message::Author(Announce { document, number: input.number() as u32, author, base: number })
            }
            8 => {
                let heads: Heads = (1..=input.below(4))
                    .map(|id| (ReplicaId([id; 16]), Head { seq: 1 + number % 8, chain: Chain(number) }))
                    .collect();
                let offset = input.number() as u32 % 4;
                Message::Heads(HeadsPart {
                    document,
                    offset,
                    last: input.flag(),
                    heads: pack_heads(heads.iter(), 500).0,
                })
            }
            9 => Message::Resume(Resume { document, from: input.flag().then_some(number) }),
            10 => {
                let authors = (0..input.below(4)).flat_map(|id| [id; 16]).collect::<Vec<_>>();
                Message::Fork(Fork { document, authors: authors.into() })
            }
            11 => self.open(document, number),
            12 => Message::Close(End { document: self.document(), code: Code(number as u16), reason: String::new() }),
            13 => Message::Denied(End { document: self.document(), code: Code(number as u16), reason: String::new() }),
            14 if self.datagram => {
                let inner = self.message().encode();
                Message::Reliable(number, inner)
            }
            14 => Message::Confirm(Confirm { next: number }),
            15 if input.flag() => {
                let bytes = input.number() as u32;
                Message::SnapshotWanted(SnapshotWanted { document, offset: number, bytes })
            }
            15 => {
                let id =
                    SnapshotId { bytes: input.number(), head_bytes: input.byte().into(), hash: [input.byte(); 16] };
                Message::Snapshot(SnapshotPart { document, id, offset: number, bytes: input.bytes() })
            }
            16 if number == 31 => {
                Message::Goodbye(Farewell { code: Code(input.byte().into()), reason: String::new(), retry_after: None })
            }
            17 => Message::Confirm(Confirm { next: number }),
            _ => self.changes(document, number),
        }
    }

    fn open(&mut self, number: u32, begins: u64) -> Message {
        let document = self.document();
        let input = &mut self.input;
        let timeline =
            |byte: u8| Timeline::new(if byte < 16 { u64::from(byte) << 6 } else { 0x100 | u64::from(byte % 4) });
        let cursor = input.flag().then(|| Cursor { timeline: timeline(input.byte()), position: input.number() });
        let timelines = input.flag().then(|| OwnTimelines {
            current: timeline(input.byte()),
            previous: input.flag().then(|| timeline(input.byte())),
        });
        Message::Open(Open {
            number,
            document,
            access: if input.flag() { Access::Write } else { Access::Read },
            thorough: input.below(4) == 3,
            schema: None,
            timelines,
            begins: begins % 8,
            horizon: if input.below(4) == 3 { input.number() } else { 0 },
            tail: input.number(),
            digest: input.number() % 2,
            cursor: cursor.map(Into::into),
            own: Head { seq: input.number(), chain: Chain(0) }.into(),
            acks: if input.flag() { input.number() } else { 0 },
        })
    }

    fn changes(&mut self, document: u32, seq: u64) -> Message {
        let input = &mut self.input;
        let (absolute, from, author) = (input.flag(), input.number(), input.number() as u32 % 8);
        let content = match input.below(4) {
            0 | 1 => Content::Live {
                author,
                seq,
                body: if input.flag() { Body::Bytes(input.bytes()) } else { Body::Blank(BodyHash(seq)) },
            },
            2 => {
                let count = u64::from(1 + input.below(4));
                let run = OpRun { author, seq: seq.min(u64::MAX - count), count, blank: input.flag() };
                let body = if run.blank { Body::Blank(BodyHash(seq)) } else { Body::Bytes(input.bytes()) };
                let bodies = vec![body; count as usize];
                Content::Bulk { span: count.saturating_add(input.number()), runs: vec![run], bodies }
            }
            _ => {
                let piece = vec![7; usize::from(input.byte()) + 1];
                let offset = (input.number() as u32).min(u32::MAX - 2000);
                let total = offset + piece.len() as u32 + if input.flag() { input.number() as u32 % 1000 } else { 0 };
                Content::Part { author, seq, offset, total, piece: piece.into() }
            }
        };
        Message::Changes(Changes { document, absolute, from, content })
    }
}
