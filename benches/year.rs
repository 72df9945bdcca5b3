//! A year of ten people who are seldom online, in virtual time, with all laws asked after every event.
//!
//! `cargo bench --bench year` runs it. Each has a replica that is joined to a server for an hour a day, at a time of its
//! own, and writes 50 ops a day, whether it is online or not.

#![expect(clippy::disallowed_methods, reason = "it is how long this takes that is told")]

use std::time::{Duration, Instant};

use antiphon::rng::Rng;
use antiphon_sim::clock::Clock;
use antiphon_sim::plan::{Budget, Deed, Plan, PlanOf, PlannedNode, PlannedPath, Step};
use antiphon_sim::replica::{Setup, Write, WriterNode};
use antiphon_sim::run::run;
use antiphon_sim::world::{Medium, Pace};

const PEOPLE: u32 = 10;
const OPS_A_DAY: u32 = 50;
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

fn main() {
    // Smoke: a week does.
    let days = if std::env::args().any(|argument| argument == "--test") { 7 } else { 365 };
    let plan = plan(days);
    let begun = Instant::now();
    let report = run::<WriterNode>(&plan);
    let seconds = begun.elapsed().as_secs_f64();
    report.outcome.expect("no law is broken");
    assert_eq!(report.ops, u64::from(days * PEOPLE * OPS_A_DAY));
    let events = report.events as f64;
    println!("{days} days of {PEOPLE} mostly offline replicas, {} ops, laws on", report.ops);
    println!("{events} events in {seconds:.1} s, {:.2} million a second", events / seconds / 1e6);
    println!("trace hash {:016x}", report.trace_hash);
}

fn plan(days: u32) -> PlanOf<WriterNode> {
    let mut dice = Rng::new(1);
    let setup: Setup = "documents=doc0".parse().expect("a setup");
    let (clock, pace) = (Clock::default(), Pace::of(MILLISECOND));
    let nodes = (0..=PEOPLE).map(|name| PlannedNode { name, down: false, clock, pace, setup: setup.clone() }).collect();
    let medium = Medium::reliable(30 * MILLISECOND);
    let paths = (1..=PEOPLE).map(|name| PlannedPath { name: (name, 0), medium }).collect();
    let mut steps: Vec<_> = (1..=PEOPLE).map(|name| Step { at: Duration::ZERO, deed: Deed::Down((name, 0)) }).collect();
    for name in 1..=PEOPLE {
        for day in 0..days {
            let mut moment =
                |within: Duration| day * DAY + Duration::from_millis(dice.below(within.as_millis() as u64));
            let online = moment(DAY - HOUR);
            steps.push(Step { at: online, deed: Deed::Mend((name, 0)) });
            steps.push(Step { at: online + HOUR, deed: Deed::Down((name, 0)) });
            for _ in 0..OPS_A_DAY {
                let document = "doc0".parse().expect("a name");
                let write = Write::Append { document, ops: 1, bytes: 20, wait: false };
                steps.push(Step { at: moment(DAY), deed: Deed::Act(name, write) });
            }
        }
    }
    steps.sort_by_key(|step| step.at);
    let budget = Budget { time: HOUR, bytes: 1 << 30 };
    Plan { seed: 1, nodes, paths, steps, frames: Vec::new(), heal: days * DAY, budget }
}

const MILLISECOND: Duration = Duration::from_millis(1);
