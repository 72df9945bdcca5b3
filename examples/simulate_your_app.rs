//! An app of its own in the simulator: a seed finds its bug, a small plan shows it, and the mended app survives.
//!
//! Guests book seats, each on a replica of their own, online or not. When two have booked the same seat, all replicas must
//! come to agree who has it. One way to settle that is wrong; [`LastComes`] is how it looks before somebody simulates it.
//!
//! ```text
//! cargo run --release --example simulate_your_app
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::process::ExitCode;
use std::str::FromStr;
use std::thread::available_parallelism;

use antiphon::op::{DocumentId, Entry, ReplicaId};
use antiphon::replica::Input;
use antiphon_sim::campaign::campaign;
use antiphon_sim::laws::{Law, Scene};
use antiphon_sim::node::Action;
use antiphon_sim::plan::{Profile, Source, shrink};
use antiphon_sim::replica::{App, AppWorkload, ReplicaNode, Setup, When};
use antiphon_sim::run::quiet_panics;
use antiphon_sim::world::Happening;

// ------------------------------------------------------------------------------------------------ the app

/// Who has a seat of two who booked it: the holder so far, and whose booking comes next in the log.
trait Settles: 'static {
    fn settle(holder: ReplicaId, next: ReplicaId) -> ReplicaId;
}

/// Whose booking comes last in the log has the seat. But logs differ in the order of what was written at the same time.
struct LastComes;

impl Settles for LastComes {
    fn settle(_: ReplicaId, next: ReplicaId) -> ReplicaId {
        next
    }
}

/// The lower id has the seat, in whatever order the bookings come.
struct LowerId;

impl Settles for LowerId {
    fn settle(holder: ReplicaId, next: ReplicaId) -> ReplicaId {
        holder.min(next)
    }
}

/// The app on one replica: who has which seat, as far as its log knows.
struct Seats<S> {
    /// Where the hall is not open, its bookings are passed on, and the app is told of none.
    is_open: bool,
    holders: BTreeMap<u8, ReplicaId>,
    settles: PhantomData<S>,
}

impl<S: Settles> App for Seats<S> {
    type Action = Book;

    // Its state is made of the log: after a restart, all entries come again.
    const READS_THE_LOG: bool = true;

    fn start(setup: &Setup) -> Self {
        let is_open = setup.documents.contains_key(&hall());
        Self { is_open, holders: BTreeMap::new(), settles: PhantomData }
    }

    fn act(&mut self, Book { seat }: Book, at: When) -> Vec<Input> {
        // The laws of the simulator tell lost bookings from others by their bodies: each has a number of its own.
        let booking = [&[seat][..], &at.step.to_le_bytes()].concat();
        vec![Input::Append { document: hall(), bodies: vec![booking.into()] }]
    }

    fn entry(&mut self, _: &DocumentId, entry: &Entry) {
        let Some(seat) = entry.op.body.bytes().and_then(|booking| booking.first()) else { return };
        let booked = entry.op.id.author;
        self.holders.entry(*seat).and_modify(|holder| *holder = S::settle(*holder, booked)).or_insert(booked);
    }

    fn reset(&mut self, _: &DocumentId) {
        self.holders.clear();
    }

    fn laws() -> Vec<Box<dyn Law<ReplicaNode<Self>>>> {
        vec![Box::new(OneHolder)]
    }
}

fn hall() -> DocumentId {
    "doc0".parse().expect("the name is valid")
}

/// What a guest does. As text, in plans: `book 3`.
#[derive(Clone, Debug, PartialEq)]
struct Book {
    seat: u8,
}

impl Action for Book {}

impl fmt::Display for Book {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "book {}", self.seat)
    }
}

impl FromStr for Book {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let seat = text.strip_prefix("book ").and_then(|seat| seat.parse().ok());
        seat.map(|seat| Self { seat }).ok_or("an action such as `book 3`")
    }
}

/// What guests do in plans that are drawn: each books one of a few seats.
impl<S: Settles> AppWorkload for Seats<S> {
    fn draw_action(source: &mut dyn Source, _: &Setup, _: u32) -> (Book, u32) {
        (Book { seat: source.below(4) as u8 }, 1)
    }

    fn bytes(_: &Book) -> u64 {
        9
    }
}

// ------------------------------------------------------------------------------------------------ its law

/// Replicas that hold the same bookings agree who has which seat.
struct OneHolder;

impl<S: Settles> Law<ReplicaNode<Seats<S>>> for OneHolder {
    fn name(&self) -> &'static str {
        "one holder"
    }

    fn check(
        &mut self,
        _: &Scene<'_, ReplicaNode<Seats<S>>>,
        _: &Happening<ReplicaNode<Seats<S>>>,
    ) -> Result<(), String> {
        Ok(()) // it is asked after every event; but what was booked at the same time is settled in the end
    }

    fn at_rest(&mut self, scene: &Scene<'_, ReplicaNode<Seats<S>>>) -> Result<(), String> {
        let mut agreed = BTreeMap::new();
        let copies = scene.ledger.document(&hall()).into_iter().flat_map(|hall| scene.ledger.copies(hall));
        for (node, copy) in copies {
            let app = scene.world.process(node).map(ReplicaNode::app).filter(|app| app.is_open);
            let Some(app) = app else { continue };
            let (first, holders) = agreed.entry(copy.digest).or_insert((node, &app.holders));
            if **holders != app.holders {
                return Err(format!("{first} and {node} hold the same bookings: {holders:?} and {:?}", app.holders));
            }
        }
        Ok(())
    }
}

// ------------------------------------------------------------------------------------------------ the search

/// A star of three replicas over lossy links, a cut and a crash, and ten bookings: in each plan other ones.
const PROFILE: fn() -> Profile = || Profile { ops: 10, ..Profile::default() };
const STEPS_MAX: usize = 4;

fn main() -> ExitCode {
    type Wrong = ReplicaNode<Seats<LastComes>>;
    type Mended = ReplicaNode<Seats<LowerId>>;
    quiet_panics(); // a panic in a run is a law that it breaks
    let jobs = available_parallelism().map_or(1, usize::from);

    let found = campaign::<Wrong>(|_| PROFILE(), 0..200, jobs, |_| ());
    let Some((seed, violation)) = found.failed.first() else {
        println!("200 seeds did not find the bug");
        return ExitCode::FAILURE;
    };
    println!("seed {seed} breaks a law: {violation}\n");
    let shrunk = shrink::<Wrong>(&PROFILE().plan::<Wrong>(*seed), 2_000).expect("it breaks a law");
    println!("after {} runs this is left of its plan, and breaks it too:\n\n{}", shrunk.runs, shrunk.plan);

    let mended = campaign::<Mended>(|_| PROFILE(), 0..5_000, jobs, |_| ());
    let broken = mended.failed.len();
    println!(
        "mended, the app survives {} of {} seeds, with {} crashes",
        mended.seeds - broken as u64,
        mended.seeds,
        mended.crashes
    );
    for (seed, violation) in &mended.failed {
        println!("seed {seed} breaks a law: {violation}");
    }
    if shrunk.plan.steps.len() <= STEPS_MAX && broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
