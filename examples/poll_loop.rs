//! The loop by hand: two sessions and two logs, no driver and no storage. The README shows this file.

use std::sync::Arc;

use antiphon::heads::Judgement;
use antiphon::log::Log;
use antiphon::op::{Body, ReplicaId, Timeline};
use antiphon::session::{Config, Event, Input, Local, Misuse, Opening, Output};
use antiphon::timeline::Opens;
use antiphon::{Instant, Machine, Session};

struct End {
    session: Session,
    log: Log,
}

impl End {
    fn new(number: u8) -> Self {
        // In earnest these are random bits from the system: the first is stored, the others are drawn at each start.
        let (replica, timeline, nonce) = (ReplicaId([number; 16]), Timeline::new(number.into()), number.into());
        let local = Local { replica, timeline, previous: None, nonce, token: None };
        let session = Session::new(Instant::ZERO, Config::default(), local);
        Self { session, log: Log::new(Arc::new(Opens::first(timeline))) }
    }

    /// What was appended is durable (here: in memory), and of the peer's log everything below `held`.
    fn advance(&self, held: u64) -> Input {
        Input::Advance { number: 0, tail: self.log.tail(), digest: self.log.heads().digest(), held, live: None }
    }

    fn answer(&mut self, output: Output) -> Option<Input> {
        Some(match output {
            Output::Authenticate { .. } => Input::Authenticated(Ok(())), // who has the link may come in
            Output::Event(Event::Connected { .. }) => {
                Input::Open(Box::new(Opening::of(&self.log, "notes".parse().ok()?, 0)))
            }
            Output::Take { origin, to, ops, .. } => {
                ops.into_iter().for_each(|op| assert_ne!(self.log.take(op, Some(origin)), Judgement::Gap));
                self.advance(to)
            }
            Output::Load { number, from, max_cost } => Input::Loaded { number, chunk: self.log.read(from, max_cost)? },
            Output::Compare { number, heads } => Input::Compared { number, comparison: self.log.compare(&heads)? },
            _ => return None, // other events; and nobody makes snapshots here
        })
    }
}

/// Runs until both hold the same, and returns when that was.
fn run(ends: &mut [End; 2], mut now: Instant) -> Result<Instant, Misuse> {
    while ends[0].log.heads() != ends[1].log.heads() {
        let Some((side, output)) = (0..2).find_map(|side| Some((side, ends[side].session.poll()?))) else {
            // Nothing is left to do: with a socket, wait for it until the earlier deadline.
            now = ends.iter().filter_map(|end| end.session.deadline()).min().expect("a live session has timers");
            ends.iter_mut().try_for_each(|end| end.session.handle(now, Input::Timer))?;
            continue;
        };
        match output {
            Output::Transmit(frame) => ends[1 - side].session.handle(now, Input::Received(frame))?,
            other => ends[side].answer(other).map_or(Ok(()), |input| ends[side].session.handle(now, input))?,
        }
    }
    Ok(now)
}

fn main() -> Result<(), Misuse> {
    let mut ends = [End::new(1), End::new(2)];
    for end in &mut ends {
        end.log.append(end.session.replica(), Body::Bytes("written before they met".into()));
    }
    let met = run(&mut ends, Instant::ZERO)?;

    let first = &mut ends[0];
    first.log.append(first.session.replica(), Body::Bytes("written live".into()));
    let live = first.advance(first.session.held(0).map_or(0, |held| held.position));
    first.session.handle(met, live)?;
    let end = run(&mut ends, met)?;

    println!("in step: 2 replicas, {} ops, at {end}", ends[0].log.tail());
    Ok(())
}
