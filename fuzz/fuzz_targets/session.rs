//! One session against a peer of which half the frames are honest: whatever comes, in whatever order, the laws hold.
//!
//! The bytes are a list of steps; most runs begin with a handshake that two sessions complete by themselves.

#![no_main]

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use antiphon_fuzz::Run;
use libfuzzer_sys::fuzz_target;

static RUNS: AtomicU64 = AtomicU64::new(0);
static LIVE: AtomicU64 = AtomicU64::new(0);

fuzz_target!(|data: &[u8]| {
    let mut run = Run::new(data);
    run.steps();
    let live = LIVE.fetch_add(u64::from(run.was_live), Relaxed) + u64::from(run.was_live);
    let runs = RUNS.fetch_add(1, Relaxed) + 1;
    if runs.is_power_of_two() && runs >= 1 << 12 {
        eprintln!("{live} of {runs} runs had a live session");
        assert!(2 * live > runs, "most runs should get as far as a live session");
    }
});
