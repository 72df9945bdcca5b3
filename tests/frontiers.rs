//! The five numbers of a document, `sent >= received >= acked` and `taken >= held`, keep their order, go forward only,
//! and never say more than is true at the other end, whatever becomes of the frames.

mod common;

use std::collections::VecDeque;
use std::time::Duration;

use antiphon::op::Body;
use antiphon::session::{Frontiers, Input, Output, Transport};
use antiphon::wire::{Limits, Point};
use antiphon::{Instant, Machine, Session};
use bytes::Bytes;
use common::Host;
use common::sessions::*;
use quickcheck::{Arbitrary, Gen, QuickCheck};

/// One thing that happens, to one of the two ends.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The `n`th frame on its way to the end arrives, on reliable links the first.
    Deliver(u8),
    /// It is lost, on datagram links.
    Lose(u8),
    /// It arrives and stays on its way, on datagram links.
    Double(u8),
    /// The end's disk finishes what it has begun.
    Write,
    /// The end's app appends an op of so many bytes.
    Append(u16),
    /// The end's app waits for an acknowledgement.
    Wait,
    /// So many milliseconds pass.
    Time(u8),
}

#[derive(Clone, Debug)]
struct Schedule {
    datagram: bool,
    steps: Vec<(bool, Step)>,
}

impl Arbitrary for Schedule {
    fn arbitrary(g: &mut Gen) -> Self {
        let step = |g: &mut Gen| match u8::arbitrary(g) % 16 {
            0..6 => Step::Deliver(u8::arbitrary(g) % 4),
            6 => Step::Lose(u8::arbitrary(g) % 4),
            7 => Step::Double(u8::arbitrary(g) % 4),
            8..10 => Step::Write,
            10..13 => Step::Append(u16::arbitrary(g) % 4000),
            13 => Step::Wait,
            _ => Step::Time(u8::arbitrary(g)),
        };
        let count = 40 + usize::arbitrary(g) % 200;
        Self { datagram: bool::arbitrary(g), steps: (0..count).map(|_| (bool::arbitrary(g), step(g))).collect() }
    }

    fn shrink(&self) -> Box<dyn Iterator<Item = Self>> {
        let datagram = self.datagram;
        let without = |from: usize, len: usize| {
            let (before, after) = (self.steps[..from].iter(), self.steps[from + len..].iter());
            Self { datagram, steps: before.chain(after).copied().collect() }
        };
        let count = self.steps.len();
        let lens = [count / 2, count / 4, 8, 1].into_iter().filter(|len| (1..=count).contains(len));
        let all: Vec<_> = lens.flat_map(|len| (0..=count - len).step_by(len).map(move |from| (from, len))).collect();
        Box::new(all.into_iter().map(|(from, len)| without(from, len)).collect::<Vec<_>>().into_iter())
    }
}

/// An end whose disk takes its time: what was taken is durable when a step says so.
struct End {
    session: Session,
    host: Host,
    /// What the disk has yet to finish, in order.
    writes: VecDeque<Output>,
    /// Frames on their way to this end.
    inbox: VecDeque<Bytes>,
    before: Option<Frontiers>,
}

/// Small limits: windows fill, and ops go in parts.
const LIMITS: Limits = Limits { frame: 1000, op: 8000, window: 6000, credit: 12_000, documents: 4, authors: 8 };

fn ends(transport: Transport) -> [End; 2] {
    let config = antiphon::session::Config { transport, limits: LIMITS, ..Default::default() };
    let mut hosts = hosts().into_iter();
    [0, 1].map(|side| End {
        session: Session::new(NOW, config.clone(), local(side, side as u64 + 20)),
        host: hosts.next().expect("there are two"),
        writes: VecDeque::new(),
        inbox: VecDeque::new(),
        before: None,
    })
}

/// Does all that the end wants done, but for writing; says what it sends.
fn drain(end: &mut End, now: Instant) -> Vec<Bytes> {
    let mut frames = Vec::new();
    while let Some(output) = end.session.poll() {
        match output {
            Output::Transmit(frame) => frames.push(frame),
            Output::Take { .. } => end.writes.push_back(output),
            other => {
                for input in end.host.answer(other) {
                    end.session.handle(now, input).expect("it was asked");
                }
            }
        }
    }
    frames
}

fn advance(end: &mut End, now: Instant) {
    let held = end.session.held(0).map_or(0, |held| held.position);
    let (tail, digest) = (end.host.log.tail(), end.host.log.heads().digest());
    let input = Input::Advance { number: 0, tail, digest, held, live: None };
    // Not open yet, or closed: there is nothing to tell.
    _ = end.session.handle(now, input);
}

fn act(ends: &mut [End; 2], side: usize, step: Step, datagram: bool, now: &mut Instant) {
    let end = &mut ends[side];
    let chosen = |inbox: &VecDeque<Bytes>, n: u8| if datagram { usize::from(n) % inbox.len().max(1) } else { 0 };
    match step {
        Step::Deliver(n) => {
            let index = chosen(&end.inbox, n);
            if let Some(frame) = end.inbox.remove(index) {
                end.session.handle(*now, Input::Received(frame)).expect("frames are never misuse");
            }
        }
        Step::Double(n) if datagram => {
            if let Some(frame) = end.inbox.get(chosen(&end.inbox, n)).cloned() {
                end.session.handle(*now, Input::Received(frame)).expect("frames are never misuse");
            }
        }
        Step::Lose(n) if datagram => _ = end.inbox.remove(chosen(&end.inbox, n)),
        Step::Lose(_) | Step::Double(_) => {}
        Step::Write => {
            for input in end.writes.pop_front().into_iter().flat_map(|take| end.host.answer(take)) {
                end.session.handle(*now, input).expect("the document is open");
            }
        }
        Step::Append(len) => {
            let me = end.host.replica;
            end.host.log.append(me, Body::Bytes(vec![7; usize::from(len)].into()));
            advance(end, *now);
        }
        Step::Wait => _ = end.session.handle(*now, Input::ImmediateAck { number: 0 }),
        Step::Time(millis) => *now = *now + Duration::from_millis(u64::from(millis)),
    }
    for side in 0..2 {
        let end = &mut ends[side];
        if end.session.deadline().is_some_and(|due| due <= *now) {
            end.session.handle(*now, Input::Timer).expect("timers are never misuse");
        }
        let frames = drain(end, *now);
        ends[1 - side].inbox.extend(frames);
    }
}

/// What holds of two ends after every step.
fn laws(ends: &mut [End; 2]) -> Result<(), String> {
    let now = [0, 1].map(|side: usize| ends[side].session.frontiers(0));
    for side in 0..2 {
        let Some(at) = now[side] else { continue };
        let law = |holds: bool, law: &str| {
            if holds { Ok(()) } else { Err(format!("{law}: end {side} {at:?}, the other {:?}", now[1 - side])) }
        };
        law(at.sent >= at.received, "sent >= received")?;
        law(at.received >= Point::at(at.acked), "received >= acked")?;
        law(at.taken >= Point::at(at.held), "taken >= held")?;
        law(at.sent.position <= ends[side].host.log.tail(), "nothing is sent that is not in the log")?;
        if let Some(before) = ends[side].before.replace(at) {
            law(at.sent >= before.sent && at.acked >= before.acked, "sent and acked go forward")?;
            law(at.taken >= before.taken && at.held >= before.held, "taken and held go forward")?;
        }
        if let Some(other) = now[1 - side] {
            law(at.acked <= other.held, "what counts as acknowledged is durable there")?;
            law(at.received <= other.taken, "what counts as received was taken there")?;
            law(other.taken <= at.sent, "what was taken there was sent")?;
        }
    }
    Ok(())
}

fn holds(schedule: &Schedule) -> Result<(), String> {
    let transport = if schedule.datagram { DATAGRAM } else { Transport::Reliable };
    let (mut ends, mut now) = (ends(transport), NOW);
    for end in &mut ends {
        end.session.handle(now, end.host.opening()).expect("it is not open");
    }
    for (side, step) in schedule.steps.iter().copied() {
        act(&mut ends, usize::from(side), step, schedule.datagram, &mut now);
        laws(&mut ends)?;
    }
    // Then nothing is lost any more, and both must get in step.
    for _ in 0..4000 {
        for side in 0..2 {
            act(&mut ends, side, Step::Write, schedule.datagram, &mut now);
            act(&mut ends, side, Step::Deliver(0), schedule.datagram, &mut now);
            laws(&mut ends)?;
        }
        let quiet = ends.iter().all(|end| end.inbox.is_empty() && end.writes.is_empty());
        let tails = [0, 1].map(|side: usize| ends[side].host.log.tail());
        let done = |side: usize| ends[side].session.frontiers(0).is_some_and(|at| at.acked == tails[side]);
        if quiet && done(0) && done(1) {
            let [one, two] = &ends;
            return if one.host.log.heads() == two.host.log.heads() { Ok(()) } else { Err("different heads".into()) };
        }
        if quiet {
            now = now + Duration::from_millis(20);
        }
    }
    let events = ends.each_ref().map(|end| &end.host.events);
    Err(format!("not in step: {:?}, {events:?}", [0, 1].map(|side: usize| ends[side].session.frontiers(0))))
}

#[test]
fn the_five_numbers_keep_their_laws_whatever_becomes_of_the_frames() {
    fn property(schedule: Schedule) -> Result<bool, String> {
        holds(&schedule).map(|()| true)
    }
    QuickCheck::new().tests(2000).quickcheck(property as fn(Schedule) -> Result<bool, String>);
}
