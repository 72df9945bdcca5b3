//! One replica with two links to replicas that keep to the protocol, over paths that do not, on a storage that answers
//! late, never, or with failure, and with a host that makes mistakes: it never panics, and its limits hold.

#![no_main]

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use antiphon_fuzz::Play;
use libfuzzer_sys::fuzz_target;

static RUNS: AtomicU64 = AtomicU64::new(0);
static LIVE: AtomicU64 = AtomicU64::new(0);

fuzz_target!(|data: &[u8]| {
    let mut play = Play::new(data);
    play.steps();
    let live = LIVE.fetch_add(u64::from(play.was_live), Relaxed) + u64::from(play.was_live);
    let runs = RUNS.fetch_add(1, Relaxed) + 1;
    if runs.is_power_of_two() && runs >= 1 << 12 {
        eprintln!("{live} of {runs} runs had a live session");
        assert!(2 * live > runs, "most runs should get as far as a live session");
    }
});
