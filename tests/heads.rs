//! Heads and chains: what is held, as a value that both ends can compare.

use antiphon::digest::{BodyHash, Chain};
use antiphon::heads::{Head, Heads, Judgement};
use antiphon::op::{OpId, ReplicaId};
use quickcheck::{TestResult, quickcheck};
use std::collections::BTreeMap;

/// A few authors, so that drawn ones meet again.
fn author(byte: u8) -> ReplicaId {
    ReplicaId([byte % 8; 16])
}

fn head(seq: u64, chain: u64) -> Head {
    if seq == 0 { Head::NONE } else { Head { seq, chain: Chain(chain) } }
}

/// The heads after these settings, and what a plain map says.
fn set_all(settings: &[(u8, u8, u8)]) -> (Heads, BTreeMap<ReplicaId, Head>) {
    let (mut heads, mut map) = (Heads::new(), BTreeMap::new());
    for (id, seq, chain) in settings {
        let (id, head) = (author(*id), head(u64::from(seq % 4), u64::from(*chain % 4)));
        heads.set(id, head);
        map.insert(id, head);
        if head == Head::NONE {
            map.remove(&id);
        }
    }
    (heads, map)
}

quickcheck! {
    fn heads_are_a_map_without_empty_heads(settings: Vec<(u8, u8, u8)>) -> bool {
        let (heads, map) = set_all(&settings);
        heads.iter().eq(map.iter().map(|(id, head)| (*id, *head)))
            && heads.len() == map.len()
            && heads.is_empty() == map.is_empty()
            && (0..8).all(|id| heads.get(author(id)) == map.get(&author(id)).copied().unwrap_or(Head::NONE))
    }

    fn the_digest_tells_heads_apart_and_nothing_else(one: Vec<(u8, u8, u8)>, two: Vec<(u8, u8, u8)>) -> bool {
        let ((one, map_one), (two, map_two)) = (set_all(&one), set_all(&two));
        (map_one == map_two) == (one.digest() == two.digest()) && (map_one == map_two) == (one == two)
    }

    fn the_order_of_authors_does_not_matter(settings: Vec<(u8, u8, u8)>, rotate: usize) -> bool {
        let (heads, map) = set_all(&settings);
        let mut order: Vec<_> = map.into_iter().collect();
        let by = rotate % order.len().max(1);
        order.rotate_left(by);
        let forth: Heads = order.iter().copied().collect();
        let back: Heads = order.into_iter().rev().collect();
        forth.digest() == heads.digest() && back == heads
    }

    fn unset_is_as_if_never_set(settings: Vec<(u8, u8, u8)>, id: u8, seq: u8, chain: u64) -> bool {
        let (before, _) = set_all(&settings);
        let mut after = before.clone();
        after.set(author(id), head(u64::from(seq), chain));
        after.set(author(id), before.get(author(id)));
        let mut none = before.clone();
        (0..8).for_each(|id| none.set(author(id), Head::NONE));
        after == before && none == Heads::new() && none.digest() == 0
    }

    fn heads_come_in_order_after_any_author(settings: Vec<(u8, u8, u8)>, id: u8) -> bool {
        let (heads, map) = set_all(&settings);
        let after: Vec<_> = heads.after(Some(author(id))).collect();
        let expected: Vec<_> = map.into_iter().filter(|(other, _)| *other > author(id)).collect();
        after == expected && heads.after(None).eq(heads.iter())
    }

    fn covered_is_what_is_not_above(settings: Vec<(u8, u8, u8)>, id: u8, seq: u8) -> bool {
        let (heads, _) = set_all(&settings);
        let (author, seq) = (author(id), u64::from(seq % 6) + 1);
        heads.covers(OpId { author, seq }) == (seq <= heads.get(author).seq)
    }

    fn ops_are_judged_by_their_seq(held: u64, seq: u64) -> TestResult {
        if held == u64::MAX || seq == 0 {
            return TestResult::discard();
        }
        let judgement = head(held, 1).judge(seq);
        TestResult::from_bool(match judgement {
            Judgement::Duplicate => seq <= held,
            Judgement::Next => seq == held + 1,
            Judgement::Gap => seq > held + 1,
        })
    }

    fn only_the_next_op_moves_a_head(bodies: Vec<Vec<u8>>) -> bool {
        let mut head = Head::NONE;
        for (seq, body) in (1..).zip(&bodies) {
            assert_eq!(head.judge(seq), Judgement::Next);
            assert_eq!(head.judge(seq + 1), Judgement::Gap);
            head = head.then(BodyHash::of(body));
            assert_eq!(head.judge(seq), Judgement::Duplicate);
        }
        head.seq == bodies.len() as u64
    }

    fn a_chain_tells_histories_apart(one: Vec<Vec<u8>>, two: Vec<Vec<u8>>) -> bool {
        let chain = |bodies: &[Vec<u8>]| bodies.iter().fold(Chain::EMPTY, |chain, body| chain.then(BodyHash::of(body)));
        (one == two) == (chain(&one) == chain(&two))
    }

    fn a_chain_tells_orders_and_prefixes_apart(bodies: Vec<Vec<u8>>) -> TestResult {
        let chain = |bodies: &[Vec<u8>]| bodies.iter().fold(Chain::EMPTY, |chain, body| chain.then(BodyHash::of(body)));
        let mut reversed = bodies.clone();
        reversed.reverse();
        if bodies.is_empty() || reversed == bodies {
            return TestResult::discard();
        }
        let shorter = &bodies[..bodies.len() - 1];
        TestResult::from_bool(chain(&reversed) != chain(&bodies) && chain(shorter) != chain(&bodies))
    }
}

#[test]
fn edges_are_judged() {
    assert_eq!(Head::NONE.judge(1), Judgement::Next);
    assert_eq!(Head::NONE.judge(2), Judgement::Gap);
    assert_eq!(head(5, 1).judge(0), Judgement::Duplicate);
    assert_eq!(head(5, 1).judge(u64::MAX), Judgement::Gap);
    assert_eq!(head(u64::MAX, 1).judge(u64::MAX), Judgement::Duplicate);
}

/// A blank keeps the body's hash, so that voiding an op changes no chain.
#[test]
fn a_blank_keeps_the_chain() {
    use antiphon::op::Body;
    let body = Body::Bytes(bytes::Bytes::from_static(b"voided"));
    let blank = Body::Blank(body.hash());
    assert_eq!(Head::NONE.then(body.hash()), Head::NONE.then(blank.hash()));
}

/// The digests are part of the protocol: both ends compute them, whatever their version.
#[test]
fn hashes_are_fixed() {
    let head = Head::NONE.then(BodyHash::of(b"first")).then(BodyHash::of(b""));
    let heads: Heads = [(author(1), head), (author(2), Head::NONE.then(BodyHash::of(b"x")))].into_iter().collect();
    let hashes = [BodyHash::of(b"first").0, head.chain.0, heads.digest()];
    assert_eq!(hashes, [3_967_406_410_050_873_939, 1_055_049_602_490_446_308, 15_499_100_075_920_513_729]);
}
