//! A plan for replicas that the bytes decide about, faults and all, but no lies: no law of the simulator is broken, and
//! when everything has healed all come to be in step within the plan's budget.

#![no_main]

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use antiphon_fuzz::drawn;
use antiphon_sim::replica::WriterNode;
use antiphon_sim::run::run;
use libfuzzer_sys::fuzz_target;

static RUNS: AtomicU64 = AtomicU64::new(0);
static LIVE: AtomicU64 = AtomicU64::new(0);

fuzz_target!(|data: &[u8]| {
    let plan = drawn(data);
    let report = run::<WriterNode>(&plan);
    if let Err(violation) = report.outcome {
        panic!("{violation}; in the plan\n\n{plan}");
    }
    let was_live = report.coverage.counts().any(|(name, count)| name.ends_with(" to live") && count > 0);
    let live = LIVE.fetch_add(was_live.into(), Relaxed) + u64::from(was_live);
    let runs = RUNS.fetch_add(1, Relaxed) + 1;
    if runs.is_power_of_two() && runs >= 1 << 10 {
        eprintln!("{live} of {runs} runs had a live session");
        assert!(2 * live > runs, "most runs should get as far as a live session");
    }
});
