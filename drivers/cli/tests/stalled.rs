//! One reader among fifty that takes nothing: the server's memory does not grow by it, and the others are told as soon as
//! before.
//!
//! `ANTIPHON_BROADCASTS=2000` takes longer.
#![cfg(target_os = "linux")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use common::light::{Light, Told, executor};
use common::measure::resident;
use common::{PATIENCE, Replica, Scratch, Server};

const READERS: usize = 50;
const BODY_BYTES: usize = 100_000;
/// Broadcasts before anything is measured, until caches are full.
const WARMING_UP: u64 = 250;
/// How much more of the server's memory may be resident while a reader stalls: what waits for it, and some noise.
const GROWTH_MAX: u64 = 4 << 20;

/// How many, half of them while one stalls.
fn broadcasts() -> u64 {
    let broadcasts = std::env::var("ANTIPHON_BROADCASTS");
    broadcasts.map_or(200, |broadcasts| broadcasts.parse().expect("ANTIPHON_BROADCASTS is a number"))
}

/// What the readers tell, and when: which, and up to where it has the document; or nothing, if it is gone.
type Heard = Receiver<(usize, Option<u64>, Instant)>;

struct Broadcast<'a> {
    writer: &'a Replica,
    heard: &'a Heard,
    pid: u32,
    written: u64,
}

/// What a phase came to.
struct Phase {
    /// How long it took until a reader had a broadcast, in order.
    latencies: Vec<Duration>,
    /// The most memory of the server that was resident.
    resident: u64,
}

impl Broadcast<'_> {
    /// Writes so often, each time when all but the last `absent` readers have what was written before.
    fn run(&mut self, times: u64, absent: usize) -> Phase {
        let mut phase = Phase { latencies: Vec::new(), resident: 0 };
        for _ in 0..times {
            self.written += 1;
            let begun = Instant::now();
            let body = vec![self.written as u8; BODY_BYTES];
            self.writer.node.try_append(&self.writer.document, vec![body.into()]).expect("it is open");
            let mut waiting = READERS - absent;
            while waiting > 0 {
                let (reader, held, at) = self.heard.recv_timeout(PATIENCE).expect("they read on");
                if reader < READERS - absent && held.expect("they stay") == self.written {
                    phase.latencies.push(at.duration_since(begun));
                    waiting -= 1;
                }
            }
            phase.resident = phase.resident.max(resident(self.pid).0);
        }
        phase.latencies.sort();
        phase
    }
}

impl Phase {
    fn percentile(&self, percent: usize) -> Duration {
        self.latencies[(self.latencies.len() - 1) * percent / 100]
    }
}

#[test]
fn one_of_fifty_that_reads_nothing_costs_neither_memory_nor_time() {
    let scratch = Scratch::new();
    let server = Server::on(&scratch.path("server"));
    let (clients, (tell, heard), stalls) = (executor(), channel(), Arc::new(AtomicBool::new(false)));
    for reader in 0..READERS {
        let (url, tell) = (server.url.clone(), tell.clone());
        let stalls = if reader == READERS - 1 { stalls.clone() } else { Arc::default() };
        let document = Some("notes".parse().expect("a good name"));
        let reading = async move {
            let client = Light::connect(&url, reader as u64, document, stalls).await;
            let report = |what| match what {
                Told::Live => {}
                Told::Holds(held) => _ = tell.send((reader, Some(held), Instant::now())),
                Told::Ended(_) => _ = tell.send((reader, None, Instant::now())),
            };
            client.run(report).await;
        };
        clients.spawn(reading).detach();
    }
    let writer = Replica::connect(&server.url, "notes");
    let pid = server.process.child.id();
    let mut broadcast = Broadcast { writer: &writer, heard: &heard, pid, written: 0 };
    broadcast.run(WARMING_UP, 0);
    let all_read = broadcast.run(broadcasts() / 2, 0);
    stalls.store(true, Ordering::SeqCst);
    let one_stalls = broadcast.run(broadcasts() / 2, 1);

    for (what, phase) in [("all read", &all_read), ("one stalls", &one_stalls)] {
        let [median, late] = [50, 99].map(|percent| phase.percentile(percent));
        eprintln!("{what}: median {median:?}, 99% within {late:?}, server {} KiB", phase.resident >> 10);
    }
    let growth = one_stalls.resident.saturating_sub(all_read.resident);
    assert!(growth < GROWTH_MAX, "the server grew by {growth} bytes while one reader stalled");
    // A stalled reader that others had to wait for would keep them for seconds: the rest is a matter of the machine.
    let (before, now) = (all_read.percentile(50), one_stalls.percentile(50));
    assert!(now < before * 2 + Duration::from_millis(20), "it took {now:?} instead of {before:?}");

    // When it reads again, it gets everything; unless it was cut meanwhile.
    stalls.store(false, Ordering::SeqCst);
    let end = broadcast.written;
    let told = || heard.recv_timeout(PATIENCE).expect("it reads on");
    while !matches!(told(), (reader, held, _) if reader == READERS - 1 && held.is_none_or(|held| held == end)) {}
}
