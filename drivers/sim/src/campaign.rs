//! Many seeds: a plan is drawn from each and run, on as many threads as there are to spare.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::coverage::Coverage;
use crate::laws::Violation;
use crate::link::Counters;
use crate::plan::{Profile, Workload};
use crate::run::{Report, run};

/// What came of many runs. It is the same whoever ran them, in whatever order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// How many plans were run.
    pub seeds: u64,
    /// Those that broke a law, in order.
    pub failed: Vec<(u64, Violation)>,
    /// Inputs that nodes were handed.
    pub events: u64,
    /// Ops that were written, and durable somewhere.
    pub ops: u64,
    /// How often a node went down.
    pub crashes: u64,
    /// What became of frames.
    pub frames: Counters,
    /// A hash over everything that happened in all runs.
    pub trace_hash: u64,
    /// What was reached.
    pub coverage: Coverage,
}

impl Summary {
    /// Adds what came of one more.
    pub fn add(&mut self, seed: u64, report: Report) {
        self.seeds += 1;
        if let Err(violation) = report.outcome {
            let place = self.failed.partition_point(|(other, _)| *other < seed);
            self.failed.insert(place, (seed, violation));
        }
        self.events += report.events;
        self.ops += report.ops;
        self.crashes += report.crashes;
        self.frames.add(report.frames);
        self.coverage.add(&report.coverage);
        // A sum, so that the order does not count; each term depends on its seed.
        let term = (report.trace_hash ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        self.trace_hash = self.trace_hash.wrapping_add(term ^ (term >> 29));
    }

    fn merge(&mut self, other: Self) {
        self.seeds += other.seeds;
        for (seed, violation) in other.failed {
            let place = self.failed.partition_point(|(known, _)| *known < seed);
            self.failed.insert(place, (seed, violation));
        }
        self.events += other.events;
        self.ops += other.ops;
        self.crashes += other.crashes;
        self.frames.add(other.frames);
        self.coverage.add(&other.coverage);
        self.trace_hash = self.trace_hash.wrapping_add(other.trace_hash);
    }
}

/// Runs the plans of these seeds, each of its `profile`, on so many threads, and tells `progress`, from whichever thread,
/// of so many more that were run.
pub fn campaign<N: Workload>(
    profile: impl Fn(u64) -> Profile + Sync,
    seeds: Range<u64>,
    jobs: usize,
    progress: impl Fn(u64) + Sync,
) -> Summary {
    /// Progress is told this often: it costs more than a thread has to spare after each.
    const SEEDS_AT_ONCE: u64 = 16;
    let next = AtomicU64::new(seeds.start);
    let total = Mutex::new(Summary::default());
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                let mut summary = Summary::default();
                loop {
                    let after = |from: u64| from.saturating_add(SEEDS_AT_ONCE).min(seeds.end);
                    let take = |from: u64| (from < seeds.end).then(|| after(from));
                    let Ok(from) = next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) else { break };
                    let to = after(from);
                    (from..to).for_each(|seed| summary.add(seed, run::<N>(&profile(seed).plan::<N>(seed))));
                    progress(to - from);
                }
                total.lock().unwrap_or_else(PoisonError::into_inner).merge(summary);
            });
        }
    });
    total.into_inner().unwrap_or_else(PoisonError::into_inner)
}
