//! A recording that is run again comes to the same, digest by digest; a machine that behaves differently, or an input that
//! is another, is named by its first event.

mod common;

use antiphon::replica::Input;
use antiphon::session::Transport;
use antiphon::{Instant, Machine, Replica};
use antiphon_recorder::{End as Ending, Memory, NotReplayable, Outcome, Recordable, Recorder, Trace};
use bytes::Bytes;
use common::*;
use quickcheck::quickcheck;
use serde::{Deserialize, Serialize};

fn replays(memory: &Memory) -> u64 {
    let trace = Trace::read(memory.segments()).expect("it was just written");
    let mut replay = run_of(&trace).replay::<Replica>().expect("it has its beginning");
    let mut steps = 0;
    for step in replay.by_ref() {
        assert!(!step.differs(), "event {}: {:?}", step.event.number, step.event.input);
        steps += 1;
    }
    assert_eq!(replay.into_events().end(), Some(&Ending::Finished));
    steps
}

#[test]
fn every_digest_is_reproduced() {
    for transport in [Transport::Reliable, DATAGRAM] {
        for tokens in [[None, None], [Some("a secret"), None], [Some("a secret"), Some("another one")]] {
            let (mut two, memories) = Two::in_memory(transport);
            script(&mut two, tokens);
            memories.iter().for_each(|memory| assert!(replays(memory) > 100));
        }
    }
}

#[test]
fn every_digest_is_reproduced_where_frames_are_damaged() {
    for every in [3, 5, 7] {
        let (mut two, memories) = Two::in_memory(DATAGRAM);
        two.damage_every = every;
        (0..2).for_each(|end| two.open(end, "notes"));
        two.connect([Some("a secret"), Some("another one")]);
        two.append(0, "notes", &[&[7; 2000]]);
        two.run(2000);
        two.finish();
        assert_eq!([two.tail(0, "notes"), two.tail(1, "notes")], [1, 1], "every {every}");
        memories.iter().for_each(|memory| assert!(replays(memory) > 10));
    }
}

#[test]
fn segments_follow_each_other() {
    let memories = [Memory::new(2048), Memory::new(2048)];
    let ends = [End::new(1, memories[0].clone(), false), End::new(2, memories[1].clone(), false)];
    let mut two = Two::new(ends, Transport::Reliable);
    script(&mut two, [None, None]);
    for memory in memories {
        assert!(memory.segments().len() > 3);
        replays(&memory);
        let mut backwards = memory.segments();
        backwards.reverse();
        let trace = Trace::read(backwards).expect("their order is in their headers");
        assert_eq!(
            run_of(&trace).replay::<Replica>().expect("it has its beginning").filter(|s| s.differs()).count(),
            0
        );
    }
}

#[test]
fn polling_changes_nothing() {
    // The same inputs, with nothing polled in between: the digests are those of the inputs all the same.
    let (mut two, memories) = Two::in_memory(Transport::Reliable);
    script(&mut two, [None, None]);
    let trace = Trace::read(memories[0].segments()).expect("it was just written");
    let run = run_of(&trace);
    let again = Memory::new(1 << 20);
    let mut lazy: Recorder<Replica> =
        Recorder::new(run.setup::<Replica>().expect("it has its beginning"), again.clone(), Default::default());
    for event in run.events::<Replica>() {
        let _ = lazy.handle(event.at, event.input);
    }
    lazy.finish();
    let again = Trace::read(again.segments()).expect("it was just written");
    assert!(run.events::<Replica>().eq(run_of(&again).events::<Replica>()));
    let mut polled = 0;
    while lazy.poll().is_some() {
        polled += 1;
    }
    assert!(polled > 50, "nothing was lost");
}

/// A machine that adds up, and says each sum.
struct Sums<const FACTOR: u64> {
    sum: u64,
    said: Vec<u64>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
enum Number {
    Add(u64),
    Fall,
}

impl<const FACTOR: u64> Machine for Sums<FACTOR> {
    type Input = Number;
    type Output = u64;
    type Misuse = ();

    fn handle(&mut self, _: Instant, input: Number) -> Result<(), ()> {
        let Number::Add(number) = input else { panic!("it falls over this") };
        if number == 0 {
            return Err(());
        }
        // The version with another factor is wrong about large numbers only.
        self.sum += if number > 100 { number * FACTOR } else { number };
        self.said.push(self.sum);
        Ok(())
    }

    fn poll(&mut self) -> Option<u64> {
        self.said.pop()
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }
}

impl<const FACTOR: u64> Recordable for Sums<FACTOR> {
    const NAME: &'static str = "sums";
    type Setup = u64;
    type Written = Number;
    type Kept = ();
    type Censor = ();

    fn make(sum: u64) -> Self {
        Self { sum, said: Vec::new() }
    }

    fn write(_: &mut (), input: &Number, _: Option<&mut u64>) -> (Number, Vec<Bytes>) {
        (input.clone(), Vec::new())
    }

    fn read(written: Number, bodies: Vec<Bytes>) -> Option<Number> {
        bodies.is_empty().then_some(written)
    }
}

fn recorded(inputs: &[(u64, Number)]) -> Trace {
    let memory = Memory::new(200);
    let mut sums: Recorder<Sums<1>> = Recorder::new(5, memory.clone(), Default::default());
    for (at, number) in inputs {
        let handled = std::panic::AssertUnwindSafe(|| sums.handle(Instant::from_micros(*at), number.clone()));
        let _ = std::panic::catch_unwind(handled);
    }
    drop(sums);
    Trace::read(memory.segments()).expect("it was just written")
}

#[test]
fn a_machine_that_behaves_differently_is_named_by_its_first_event() {
    let inputs: Vec<_> = [3, 0, 100, 101, 7].into_iter().map(|number| (10 * number, Number::Add(number))).collect();
    let trace = recorded(&inputs);
    let run = run_of(&trace);
    assert!(run.replay::<Sums<1>>().expect("it has its beginning").all(|step| !step.differs()));
    let steps: Vec<_> = run.replay::<Sums<2>>().expect("it has its beginning").collect();
    let differ: Vec<_> = steps.iter().map(|step| step.differs()).collect();
    assert_eq!(differ, [false, false, false, true], "the last is the first that differs");
    assert_eq!((steps[3].event.number, steps[3].event.at), (3, Instant::from_micros(1010)));
    assert_eq!(steps[3].event.input, Number::Add(101));
}

#[test]
fn a_panic_is_recorded_and_reproduced() {
    let trace = recorded(&[(1, Number::Add(3)), (2, Number::Fall)]);
    let run = run_of(&trace);
    let last = run.events::<Sums<1>>().last().expect("there are two");
    assert_eq!((last.number, last.outcome), (1, Outcome::Panicked));
    let steps: Vec<_> = run.replay::<Sums<1>>().expect("it has its beginning").collect();
    assert_eq!(steps.iter().map(|step| step.differs()).collect::<Vec<_>>(), [false, false]);
}

#[test]
fn another_machine_is_refused() {
    let trace = recorded(&[]);
    assert!(matches!(run_of(&trace).replay::<Replica>(), Err(NotReplayable::OtherMachine)));
}

quickcheck! {
    fn what_is_read_is_what_was_written(inputs: Vec<(u64, u64)>) -> bool {
        let mut at = 0;
        let inputs: Vec<_> = inputs.into_iter().map(|(since, number)| {
            at += since % 1_000_000_000;
            (at, Number::Add(number % 1_000_000_000))
        }).collect();
        let trace = recorded(&inputs);
        let read = run_of(&trace).events::<Sums<1>>().map(|event| (event.at.as_micros(), event.input));
        read.eq(inputs)
    }
}

/// A letter of a recorded input is another, and the checksum around it is right.
#[test]
fn another_input_is_named() {
    let (mut two, memories) = Two::in_memory(Transport::Reliable);
    script(&mut two, [None, None]);
    let segments = memories[0].segments();
    let trace = Trace::read(segments.clone()).expect("it was just written");
    let mut appends = run_of(&trace).events::<Replica>().filter_map(|event| match event.input {
        Input::Append { bodies, .. } => Some((event.number, bodies)),
        _ => None,
    });
    let (number, bodies) = appends.nth(5).expect("there are twenty");
    let forged = with_payload(&segments[0], number, |payload| {
        let place = payload.windows(bodies[0].len()).position(|window| window == bodies[0]);
        payload[place.expect("the body is in it")] ^= 1;
    });
    let trace = Trace::read([forged]).expect("its header is right");
    let steps: Vec<_> = run_of(&trace).replay::<Replica>().expect("it has its beginning").collect();
    let last = steps.last().expect("there are steps");
    assert!(last.differs());
    assert_eq!(last.event.number, number, "the append asks for a write, with the body in it");
}
