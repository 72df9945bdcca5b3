//! Two machines that hear each other: bare sessions say hello, open a document and exchange ops.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use antiphon::heads::Judgement;
use antiphon::log::Log;
use antiphon::op::{Body, ReplicaId, Timeline};
use antiphon::session::{Config, Event, Input, Local, Opening, Output};
use antiphon::timeline::Opens;
use antiphon::wire::{Access, Durability};
use antiphon::{Instant, Machine, Session};
use antiphon_memory::{Pair, Peer};
use bytes::Bytes;

const NOW: Instant = Instant::from_millis(1);

#[test]
fn sessions_connect() {
    let mut pair = sessions();
    let mut events = [Vec::new(), Vec::new()];
    let delivered = pair
        .settle(NOW, |side, output| match output {
            Output::Authenticate { replica, .. } => {
                assert_eq!(replica, id(1 - side));
                vec![Input::Authenticated(Ok(()))]
            }
            Output::Event(event) => {
                events[side].push(event);
                Vec::new()
            }
            other => panic!("{other:?}"),
        })
        .unwrap();
    assert_eq!(delivered, 4, "two Hellos and two Welcomes");
    for (side, events) in events.into_iter().enumerate() {
        let connected = Event::Connected { replica: id(1 - side), durability: Durability::Commit };
        assert_eq!(events, [connected]);
        assert!(pair.end(side).is_live());
    }
    assert!(pair.deadline().is_some_and(|deadline| deadline > NOW), "the sessions want to hear of each other again");
}

#[test]
fn sessions_exchange_ops() {
    let mut pair = sessions();
    let mut hosts = [0, 1].map(Host::new);
    pair.settle(NOW, |side, output| hosts[side].answer(output)).unwrap();
    let opening = hosts[0].opening();
    pair.handle(NOW, 0, opening).unwrap();
    pair.settle(NOW, |side, output| hosts[side].answer(output)).unwrap();
    let mut now = NOW;
    while let Some(due) = pair.deadline().filter(|due| *due < Instant::from_millis(1000)) {
        now = now.max(due);
        (0..2).for_each(|side| pair.handle(now, side, Input::Timer).unwrap());
        pair.settle(now, |side, output| hosts[side].answer(output)).unwrap();
    }
    let both: Vec<_> = hosts.iter().map(|host| host.log.heads().clone()).collect();
    assert_eq!(both[0], both[1]);
    assert_eq!((both[0].len(), hosts[0].log.tail()), (2, 6));
    assert!(hosts.iter().all(|host| host.in_step), "both are told that they are in step");
}

#[test]
fn frames_keep_their_order_and_ends_take_turns() {
    let mut pair = Pair::new([Echo::saying(&["a", "b", "c"]), Echo::saying(&["x"])]);
    let mut turns = Vec::new();
    while let Ok(Some(side)) = pair.step(NOW) {
        turns.push(side);
    }
    assert_eq!(turns, [0, 1, 1, 1]);
    assert_eq!(pair.end(0).heard, ["x"]);
    assert_eq!(pair.end(1).heard, ["a", "b", "c"]);
    assert_eq!(pair.poll(0), Some(Word::Heard(Bytes::from("x"))));

    let mut pair = Pair::new([Echo::saying(&["a", "b", "c"]), Echo::saying(&[])]);
    assert_eq!(pair.frames_to(1).remove(1).as_deref(), Some(&b"b"[..]));
    let echo = |side, heard| match heard {
        Word::Heard(word) if side == 1 => vec![Word::Say(word)],
        _ => Vec::new(),
    };
    assert_eq!(pair.settle(NOW, echo), Ok(4));
    assert_eq!(pair.end(0).heard, ["a", "c"]);
}

fn sessions() -> Pair<Session> {
    Pair::new([0, 1].map(|side| {
        let (timeline, nonce) = (Timeline::new(side as u64 + 10), side as u64 + 20);
        let local = Local { replica: id(side), timeline, previous: None, nonce, token: None };
        Session::new(Instant::ZERO, Config::default(), local)
    }))
}

fn id(side: usize) -> ReplicaId {
    ReplicaId([side as u8 + 1; 16])
}

/// The least that a session needs of a host: one document, in memory.
struct Host {
    log: Log,
    in_step: bool,
}

impl Host {
    /// With three ops of its own.
    fn new(side: usize) -> Self {
        let mut log = Log::new(Arc::new(Opens::first(Timeline::new(side as u64 + 10))));
        for number in 0..3 {
            log.append(id(side), Body::Bytes(Bytes::from(vec![number; 20])));
        }
        Self { log, in_step: false }
    }

    fn opening(&self) -> Input {
        Input::Open(Box::new(Opening {
            number: 0,
            document: "notes".parse().unwrap(),
            access: Access::Write,
            grant: Access::Write,
            thorough: false,
            schema: None,
            history: self.log.history().clone(),
            horizon: 0,
            snapshot: None,
            tail: self.log.tail(),
            heads: self.log.heads().clone(),
            cursor: None,
        }))
    }

    fn answer(&mut self, output: Output) -> Vec<Input> {
        let answer = match output {
            Output::Authenticate { .. } => Input::Authenticated(Ok(())),
            Output::Event(Event::PeerOpened { .. }) => self.opening(),
            Output::Event(event @ (Event::Closed(_) | Event::DocumentClosed { .. })) => panic!("{event:?}"),
            Output::Event(event) => {
                self.in_step |= matches!(event, Event::InStep { .. });
                return Vec::new();
            }
            Output::Load { number, from, max_cost } => {
                let chunk = self.log.read(from, max_cost).unwrap();
                Input::Loaded { number, chunk }
            }
            Output::Compare { number, heads } => {
                let comparison = self.log.compare(&heads).unwrap();
                Input::Compared { number, comparison }
            }
            Output::Take { number, origin, to, ops, .. } => {
                for op in ops {
                    assert_eq!(self.log.take(op, Some(origin)), Judgement::Next);
                }
                let (tail, digest) = (self.log.tail(), self.log.heads().digest());
                Input::Advance { number, tail, digest, held: to, live: None }
            }
            Output::ReadSnapshot { .. } | Output::TakeSnapshot { .. } => unreachable!("nobody compacts"),
            Output::Transmit(_) => unreachable!("the pair delivers frames"),
        };
        vec![answer]
    }
}

/// Says what its host tells it to, and tells its host what it hears.
#[derive(Debug, Default)]
struct Echo {
    outputs: VecDeque<Word>,
    heard: Vec<Bytes>,
}

#[derive(Debug, Eq, PartialEq)]
enum Word {
    Say(Bytes),
    Heard(Bytes),
}

impl Echo {
    fn saying(words: &[&'static str]) -> Self {
        Self { outputs: words.iter().map(|word| Word::Say(Bytes::from(*word))).collect(), heard: Vec::new() }
    }
}

impl Machine for Echo {
    type Input = Word;
    type Output = Word;
    type Misuse = Infallible;

    fn handle(&mut self, _: Instant, input: Word) -> Result<(), Infallible> {
        if let Word::Heard(word) = &input {
            self.heard.push(word.clone());
        }
        self.outputs.push_back(input);
        Ok(())
    }

    fn poll(&mut self) -> Option<Word> {
        self.outputs.pop_front()
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }
}

impl Peer for Echo {
    fn frame_out(output: Word) -> Result<Bytes, Word> {
        match output {
            Word::Say(word) => Ok(word),
            heard => Err(heard),
        }
    }

    fn frame_in(frame: Bytes) -> Word {
        Word::Heard(frame)
    }
}
