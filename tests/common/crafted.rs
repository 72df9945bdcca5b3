//! Frames that a peer makes up by hand, to be fed to a [`Victim`](super::victim::Victim): most of them are such as an
//! honest one would never send.

use antiphon::codes::Code;
use antiphon::digest::Chain;
use antiphon::heads::Head;
use antiphon::op::{Body, DocumentId, ReplicaId, Timeline};
use antiphon::wire::varint::put_varint;
use antiphon::wire::*;
use bytes::Bytes;

use super::victim::limits;

/// Our nonce.
pub const NONCE: u64 = 22;
/// The victim's number of the first document that is opened, and ours.
pub const THEIRS: u32 = 1;
pub const OURS: u32 = 7;

/// Who we say we are.
pub fn stranger() -> ReplicaId {
    ReplicaId([0xee; 16])
}

pub fn hello(limits: Limits) -> Bytes {
    hello_with(|hello| hello.limits = limits)
}

pub fn hello_with(change: impl FnOnce(&mut Hello)) -> Bytes {
    let mut hello = Hello {
        version_min: VERSION_MIN,
        version_max: VERSION,
        replica: stranger(),
        timeline: Timeline::new(77),
        previous: None,
        nonce: NONCE,
        limits: limits(),
        features: 0,
        token: None,
        extensions: Bytes::new(),
    };
    change(&mut hello);
    Message::Hello(hello).encode()
}

pub fn open(number: u32, document: &DocumentId, change: impl FnOnce(&mut Open)) -> Bytes {
    let mut open = Open {
        number,
        document: document.clone(),
        access: Access::Write,
        thorough: false,
        schema: None,
        timelines: None,
        begins: 0,
        horizon: 0,
        tail: 0,
        digest: 0,
        cursor: None,
        own: Head::NONE.into(),
        acks: 0,
    };
    change(&mut open);
    Message::Open(open).encode()
}

pub fn resume(document: u32, from: Option<u64>) -> Bytes {
    Message::Resume(Resume { document, from }).encode()
}

pub fn author(document: u32, number: u32, author: ReplicaId, base: u64) -> Bytes {
    Message::Author(Announce { document, number, author, base }).encode()
}

pub fn end(document: &DocumentId) -> End {
    End { document: document.clone(), code: Code::DONE, reason: String::new() }
}

pub fn changes(document: u32, from: u64, content: Content) -> Bytes {
    Message::Changes(Changes { document, absolute: true, from, content }).encode()
}

pub fn live(from: u64, seq: u64, body: &[u8]) -> Bytes {
    changes(OURS, from, Content::Live { author: 0, seq, body: Body::Bytes(Bytes::copy_from_slice(body)) })
}

pub fn nothing(from: u64, span: u64) -> Bytes {
    changes(OURS, from, Content::Bulk { span, runs: Vec::new(), bodies: Vec::new() })
}

/// `count` ops of `len` bytes.
pub fn bulk(from: u64, seq: u64, count: u64, len: usize) -> Bytes {
    let bodies = (0..count).map(|_| Body::Bytes(Bytes::from(vec![9; len]))).collect();
    let runs = vec![Run { author: 0, seq, count, blank: false }];
    changes(OURS, from, Content::Bulk { span: count, runs, bodies })
}

pub fn part(document: u32, from: u64, offset: u32, total: u32, len: usize) -> Bytes {
    let piece = Bytes::from(vec![8; len]);
    changes(document, from, Content::Part { author: 0, seq: 1, offset, total, piece })
}

pub fn ack(number: u64, received: u64, held: u64) -> Bytes {
    ack_with(number, received, held, |_| {})
}

pub fn ack_with(number: u64, received: u64, held: u64, change: impl FnOnce(&mut Ack)) -> Bytes {
    let mut ack = Ack {
        document: THEIRS,
        number,
        received: Point::at(received),
        held,
        window: 1 << 14,
        credit: 1 << 15,
        skip: None,
        level: None,
    };
    change(&mut ack);
    Message::Ack(ack).encode()
}

pub fn rewind(number: u64, received: u64, from: Point, to: Option<Point>) -> Bytes {
    Message::Rewind(Rewind { document: THEIRS, number, received: Point::at(received), from, to }).encode()
}

pub fn heads(offset: u32, last: bool, authors: &[(ReplicaId, u64)]) -> Bytes {
    let all = authors.iter().map(|(author, seq)| (*author, Head { seq: *seq, chain: Chain(5) }));
    let (heads, ..) = pack_heads(all, usize::MAX);
    Message::Heads(HeadsPart { document: OURS, offset, last, heads }).encode()
}

pub fn ping(token: u64) -> Bytes {
    Message::Ping(Ping { token, blocked: true }).encode()
}

pub fn pong(token: u64) -> Bytes {
    Message::Pong(Pong { token }).encode()
}

pub fn credit(number: u64, total: u64) -> Bytes {
    Message::Credit(Credit { number, total }).encode()
}

pub fn close(document: &DocumentId) -> Bytes {
    Message::Close(end(document)).encode()
}

/// That the peer and we disagree about as many authors as fit in `len` bytes.
pub fn fork(len: usize) -> Bytes {
    Message::Fork(Fork { document: OURS, authors: vec![3; len].into() }).encode()
}

/// A Welcome to another session.
pub fn welcome() -> Bytes {
    Message::Welcome(Welcome { version: VERSION, hellos: 1, durability: Durability::Commit }).encode()
}

pub fn farewell() -> Farewell {
    Farewell { code: Code::SHUTDOWN, reason: String::new(), retry_after: None }
}

pub fn replica_number(number: u64) -> ReplicaId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.to_be_bytes());
    ReplicaId(id)
}

/// Varints as they stand, with kind and flags before: what no honest code would write.
pub fn raw(kind: u8, numbers: &[u64], rest: &[u8]) -> Bytes {
    let mut out = vec![kind];
    numbers.iter().for_each(|number| put_varint(&mut out, *number));
    out.extend_from_slice(rest);
    out.into()
}
