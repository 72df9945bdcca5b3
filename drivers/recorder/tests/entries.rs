//! What a storage answers is read from a trace as it was, whoever wrote it, in whatever order.

mod common;

use antiphon::digest::BodyHash;
use antiphon::heads::Head;
use antiphon::op::{Body, Entry, Op, OpId, Origin, ReplicaId, Timeline};
use antiphon::replica::Input;
use antiphon::storage::Reply;
use antiphon::{Instant, Machine, Replica};
use antiphon_recorder::{Memory, Trace};
use common::*;
use quickcheck::quickcheck;

/// Entries of some authors, as a log has them; with a tear in a seq or a chain here and there, as no log has.
fn entries(kinds: &[(u8, u8, Vec<u8>)]) -> Vec<Entry> {
    let mut heads = [Head::NONE; 4];
    let entry = |(author, kind, body): &(u8, u8, Vec<u8>)| {
        let author = author % 4;
        let body = match kind % 8 {
            0 => Body::Blank(BodyHash(u64::from(*kind))),
            _ => Body::Bytes(body.repeat(1 + usize::from(kind % 32)).into()),
        };
        let head = &mut heads[usize::from(author)];
        *head = head.then(body.hash());
        match kind % 16 {
            2 => head.seq += 5,
            3 => head.chain.0 ^= 1,
            _ => {}
        }
        let origin = (kind % 16 > 10).then(|| Origin::of(ReplicaId([7; 16]), Timeline::new(u64::from(*kind))));
        let op = Op { id: OpId { author: ReplicaId([author; 16]), seq: head.seq }, body };
        Entry { op, chain: head.chain, origin }
    };
    kinds.iter().map(entry).collect()
}

quickcheck! {
    fn entries_are_read_as_they_were(kinds: Vec<(u8, u8, Vec<u8>)>) -> bool {
        let memory = Memory::new(1 << 20);
        let mut end = End::new(1, memory.clone(), false);
        let ticket = postcard::from_bytes(&[9]).expect("a ticket is a number");
        let input = Input::Storage { ticket, reply: Ok(Reply::Entries(entries(&kinds))) };
        // Nobody has asked for them; that does not matter here.
        end.replica.handle(Instant::ZERO, input.clone()).expect("it is ignored");
        end.replica.finish();
        let trace = Trace::read(memory.segments()).expect("it was just written");
        run_of(&trace).events::<Replica>().map(|event| event.input).eq([input])
    }
}
