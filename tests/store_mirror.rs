//! Stores that follow a document: whatever is read when, all come to hold what the document holds, and tell every change.

mod stores;

use std::collections::BTreeMap;

use antiphon::store::{Changes, Direction, Mirror, Store, Value};
use bytes::Bytes;
use quickcheck::{Arbitrary, Gen, QuickCheck};
use stores::{REPLICAS, WALL, Write, content, store};

/// What an app shows that was told of changes only.
type Shown = BTreeMap<(String, String, String), Value>;

fn show(shown: &mut Shown, changes: &Changes) {
    let cells =
        changes.cells.iter().map(|it| ((it.table.as_ref(), it.row.as_ref(), it.cell.as_ref()), &it.old, &it.new));
    let values = changes.values.iter().map(|it| (("", "", it.value.as_ref()), &it.old, &it.new));
    for ((table, row, name), old, new) in cells.chain(values) {
        let path = (table.to_owned(), row.to_owned(), name.to_owned());
        assert_eq!(shown.get(&path), old.as_ref(), "{path:?} was what it was told to be");
        assert_ne!(old, new, "{path:?} changed");
        match new {
            Some(new) => shown.insert(path, new.clone()),
            None => shown.remove(&path),
        };
    }
}

fn held(store: &Store) -> Shown {
    let values = store.values().map(|(name, value)| (("", "", name), value));
    let rows = store.tables().flat_map(|table| table.rows().map(move |row| (table, row)));
    let cells =
        rows.flat_map(|(table, row)| row.cells().map(move |(cell, value)| ((table.name(), row.name(), cell), value)));
    let all = values.chain(cells);
    all.map(|((table, row, name), value)| ((table.into(), row.into(), name.into()), value.clone())).collect()
}

struct Peer {
    mirror: Mirror,
    shown: Shown,
    position: usize,
}

impl Peer {
    fn new(client: u32, direction: Direction) -> Self {
        let mut mirror = Mirror::new(store(client));
        mirror.attach(direction);
        Self { mirror, shown: Shown::new(), position: 0 }
    }

    fn write(&mut self, wall: u64, writes: &[Write]) {
        let all = self.mirror.write(wall, |transaction| writes.iter().try_for_each(|write| write.on(transaction)));
        let ((), changes) = all.unwrap();
        show(&mut self.shown, &changes);
    }

    fn read(&mut self, log: &[(usize, Bytes)], me: usize, entries: usize) {
        let end = log.len().min(self.position.saturating_add(entries));
        for (author, body) in &log[self.position..end] {
            let applied = self.mirror.apply(body, *author == me, WALL).unwrap();
            show(&mut self.shown, &applied.changes);
        }
        self.position = end;
        if end == log.len() && self.mirror.is_reading() {
            show(&mut self.shown, &self.mirror.finish(WALL));
        }
    }

    fn send(&mut self, log: &mut Vec<(usize, Bytes)>, me: usize, bytes_max: usize) -> usize {
        let bodies = self.mirror.outgoing(bytes_max);
        let sent = bodies.len();
        log.extend(bodies.into_iter().map(|body| (me, body)));
        sent
    }
}

#[derive(Clone, Debug)]
enum Step {
    Write(usize, Vec<Write>),
    Read(usize, usize),
    Send(usize, usize),
    /// The disk took it and lost it.
    Refuse(usize),
    Detach(usize),
    Attach(usize),
    /// Of what all have read, one entry goes, and the document begins anew.
    Anew(usize),
}

impl Arbitrary for Step {
    fn arbitrary(g: &mut Gen) -> Self {
        let (peer, number) = (usize::arbitrary(g) % REPLICAS, usize::arbitrary(g) % 8);
        match u8::arbitrary(g) % 16 {
            0..6 => Self::Write(peer, (0..=number % 3).map(|_| Write::arbitrary(g)).collect()),
            6..9 => Self::Read(peer, number),
            9..12 => Self::Send(peer, number * 16),
            12 => Self::Refuse(peer),
            13 => Self::Detach(peer),
            14 => Self::Attach(peer),
            _ => Self::Anew(number),
        }
    }

    fn shrink(&self) -> Box<dyn Iterator<Item = Self>> {
        match self.clone() {
            Self::Write(peer, writes) => Box::new(writes.shrink().map(move |writes| Self::Write(peer, writes))),
            _ => quickcheck::empty_shrinker(),
        }
    }
}

fn come_to_the_same(steps: Vec<Step>) -> bool {
    let mut log: Vec<(usize, Bytes)> = Vec::new();
    let mut peers: Vec<_> = (0..REPLICAS).map(|client| Peer::new(client as u32, Direction::Both)).collect();
    for (wall, step) in (WALL..).zip(&steps) {
        match step {
            Step::Write(peer, writes) => peers[*peer].write(wall, writes),
            Step::Read(peer, entries) => peers[*peer].read(&log, *peer, *entries),
            Step::Send(peer, bytes) => drop(peers[*peer].send(&mut log, *peer, *bytes)),
            Step::Refuse(peer) => {
                let sent = peers[*peer].mirror.outgoing(usize::MAX).len();
                peers[*peer].mirror.returned(sent);
            }
            Step::Detach(peer) => peers[*peer].mirror.detach(),
            Step::Attach(peer) => {
                peers[*peer].mirror.attach(Direction::Both);
                peers[*peer].position = 0;
            }
            Step::Anew(which) => {
                let read = peers.iter().map(|peer| peer.position).min().unwrap();
                // What its author does not know to be there it would append again.
                if read > 0 && peers.iter().all(|peer| peer.mirror.unseen() == 0 && !peer.mirror.is_reading()) {
                    log.remove(which % read);
                    for peer in &mut peers {
                        peer.mirror.restart();
                        peer.position = 0;
                    }
                }
            }
        }
        peers.iter().for_each(|peer| assert_eq!(held(peer.mirror.store()), peer.shown, "after {step:?}"));
    }
    // What was read by somebody who is not attached, the document may no longer have: so all attach anew.
    for (me, peer) in peers.iter_mut().enumerate() {
        if peer.mirror.unseen() == 0 && !peer.mirror.is_equal() {
            peer.mirror.attach(Direction::Both);
            peer.position = 0;
        }
        peer.read(&log, me, usize::MAX);
        peer.send(&mut log, me, usize::MAX);
    }
    let mut fold = store(9);
    log.iter().for_each(|(_, body)| drop(fold.apply(body, WALL).unwrap()));
    for (me, peer) in peers.iter_mut().enumerate() {
        peer.read(&log, me, usize::MAX);
        assert!(peer.mirror.is_equal());
        assert_eq!(peer.mirror.store().snapshot(), fold.snapshot());
        assert_eq!(peer.shown, held(&fold));
    }
    true
}

#[test]
fn all_come_to_hold_what_the_document_holds() {
    QuickCheck::new().rng(Gen::new(60)).tests(2_000).quickcheck(come_to_the_same as fn(Vec<Step>) -> bool);
}

/// Sends, and lets others read, until nothing moves.
fn settle(peers: &mut [Peer], log: &mut Vec<(usize, Bytes)>) {
    for _ in 0..2 {
        for (me, peer) in peers.iter_mut().enumerate() {
            peer.read(log, me, usize::MAX);
            peer.send(log, me, usize::MAX);
        }
    }
}

fn cell(value: i64) -> Write {
    Write::Cell("t", "r", "c", Some(value.into()))
}

#[test]
fn tb_u1_save_without_load() {
    let (mut log, mut peers) = (Vec::new(), [Peer::new(1, Direction::Save), Peer::new(2, Direction::Both)]);
    peers[0].write(WALL, &[Write::Value("mine", Some(1.into()))]);
    peers[1].write(WALL + 1, &[Write::Value("theirs", Some(2.into()))]);
    settle(&mut peers, &mut log);
    assert_eq!(content(peers[0].mirror.store()), r#"{"tables":{},"values":{"mine":1}}"#);
    assert_eq!(content(peers[1].mirror.store()), r#"{"tables":{},"values":{"mine":1,"theirs":2}}"#);
    // Later it may load too.
    peers[0].mirror.attach(Direction::Both);
    peers[0].position = 0;
    settle(&mut peers, &mut log);
    assert_eq!(content(peers[0].mirror.store()), content(peers[1].mirror.store()));
    assert_eq!(log.len(), 2, "nothing is said twice");
}

#[test]
fn tb_u2_load_without_save() {
    let (mut log, mut peers) = (Vec::new(), [Peer::new(1, Direction::Load), Peer::new(2, Direction::Both)]);
    peers[0].write(WALL, &[Write::Value("mine", Some(1.into()))]);
    peers[1].write(WALL + 1, &[Write::Value("theirs", Some(2.into()))]);
    settle(&mut peers, &mut log);
    assert_eq!(content(peers[0].mirror.store()), r#"{"tables":{},"values":{"mine":1,"theirs":2}}"#);
    assert_eq!(content(peers[1].mirror.store()), r#"{"tables":{},"values":{"theirs":2}}"#);
    // What was kept is still there when the document begins anew, and goes out when it may.
    peers[0].write(WALL + 2, &[cell(3)]);
    peers[0].mirror.restart();
    peers[0].position = 0;
    settle(&mut peers, &mut log);
    peers[0].mirror.attach(Direction::Both);
    peers[0].position = 0;
    settle(&mut peers, &mut log);
    let all = r#"{"tables":{"t":{"r":{"c":3}}},"values":{"mine":1,"theirs":2}}"#;
    assert_eq!([0, 1].map(|peer| content(peers[peer].mirror.store())), [all, all]);
}

#[test]
fn what_is_written_while_the_document_is_read_comes_after_what_was_there_before() {
    let mut mirror = Mirror::new(store(1));
    mirror.write(WALL, |transaction| cell(1).on(transaction)).unwrap();
    mirror.attach(Direction::Both);
    mirror.write(WALL + 1, |transaction| cell(2).on(transaction)).unwrap();
    assert_eq!(mirror.outgoing(usize::MAX).len(), 0, "nobody knows yet what the document has");
    assert!(mirror.finish(WALL).is_empty(), "nothing changed for who looks at it");
    let bodies = mirror.outgoing(usize::MAX);
    let mut reader = store(2);
    let told: Vec<_> = bodies.iter().map(|body| reader.apply(body, WALL).unwrap().superseded).collect();
    assert_eq!(told.iter().sum::<usize>(), 0, "the order is that of the writing");
    assert_eq!(content(&reader), content(mirror.store()));
}

#[test]
fn the_initial_content_gives_way_to_whatever_else_is_written() {
    let mut mirrors = [1, 2].map(|client| Mirror::new(store(client)));
    let (mut log, mut bodies) = (Vec::new(), Vec::new());
    for (mirror, value) in mirrors.iter_mut().zip([10, 20]) {
        mirror.attach(Direction::Both);
        let _ = mirror.finish(WALL);
        mirror.write_initial(|transaction| cell(value).on(transaction)).unwrap();
        log.extend(mirror.outgoing(usize::MAX));
    }
    // A clock that is far behind.
    let mut late = store(3);
    bodies.push(stores::set(&mut late, 5, "t", "r", "c", 30));
    let all: Vec<_> = bodies.iter().chain(&log).cloned().collect();
    let both = |store: &mut Store, bodies: &[Bytes]| stores::apply(store, bodies);
    let (mut forth, mut back) = (store(4), store(5));
    both(&mut forth, &all);
    both(&mut back, &all.iter().rev().cloned().collect::<Vec<_>>());
    assert_eq!(content(&forth), r#"{"tables":{"t":{"r":{"c":30}}},"values":{}}"#);
    assert_eq!(content(&back), content(&forth));
}

#[test]
fn what_one_lacks_is_told_in_pieces() {
    let (mut full, mut other) = (store(1), store(2));
    let mut transaction = full.begin(WALL).unwrap();
    for row in 0..20_000 {
        transaction.set_cell("t", &format!("row {row}"), "c", "0123456789".repeat(5)).unwrap();
    }
    stores::apply(&mut other, [&transaction.commit().unwrap().body.unwrap()]);
    assert!(full.lacking(&other).is_empty());
    // One cell of 20,000 rows, by what differs alone.
    let body = stores::set(&mut full, WALL + 1, "t", "row 7", "c", 1);
    let lacking = full.lacking(&other);
    assert_eq!(lacking.len(), 1);
    assert!(lacking[0].len() <= body.len());
    let mut blank = store(3);
    let pieces = full.lacking(&blank);
    assert!(pieces.len() > 4 && pieces.iter().all(|piece| piece.len() < 300 << 10), "{}", pieces.len());
    stores::apply(&mut blank, pieces.iter().rev());
    assert_eq!(blank.snapshot(), full.snapshot());
}

#[test]
fn what_is_no_op_of_a_store_is_refused_and_harms_nothing() {
    let mut peer = Peer::new(1, Direction::Both);
    assert!(peer.mirror.apply(b"hello", false, WALL).is_err(), "while reading");
    peer.read(&[], 0, 1);
    peer.write(WALL, &[cell(1)]);
    assert!(peer.mirror.apply(b"hello", false, WALL).is_err());
    assert_eq!(content(peer.mirror.store()), r#"{"tables":{"t":{"r":{"c":1}}},"values":{}}"#);
}
