//! The simulated link: deterministic, as faulty as it says, and indifferent to when it is polled.

use std::time::Duration;

use antiphon::rng::{Ratio, Rng};
use antiphon::{Instant, Machine};
use antiphon_sim::link::{Burst, Counters, Faults, Input, Link};
use bytes::Bytes;
use quickcheck::quickcheck;

type Arrivals = Vec<(Instant, Bytes)>;

const SENT: u64 = 10_000;

#[test]
fn same_seed_same_schedule() {
    let faults = rough();
    assert_eq!(send_many(faults, 7), send_many(faults, 7));
    assert_ne!(send_many(faults, 7).0, send_many(faults, 8).0);
}

#[test]
fn perfect_link_delivers_everything_at_once() {
    let (arrivals, counters) = send_many(Faults::default(), 1);
    assert!(
        arrivals.iter().enumerate().all(|(i, (at, frame))| *at == sent_at(i as u64) && *frame == frame_of(i as u64))
    );
    assert_eq!(counters, Counters { sent: SENT, delivered: SENT, bytes: SENT * 8, ..Counters::default() });
}

#[test]
fn latency_and_jitter_bound_every_delay_and_reach_the_bounds() {
    let faults = Faults { latency: micros(20), jitter: micros(15), ..Faults::NONE };
    let (arrivals, _) = send_many(faults, 1);
    let delays: Vec<_> = arrivals.iter().map(|(at, frame)| at.since(sent_at(number_of(frame)))).collect();
    assert_eq!(delays.iter().min(), Some(&micros(20)));
    assert_eq!(delays.iter().max(), Some(&micros(35)));
    assert!(!in_order(&arrivals));
}

#[test]
fn loss_is_as_frequent_as_its_ratio() {
    let (arrivals, counters) = send_many(Faults { loss: Ratio::one_in(20), ..Faults::NONE }, 1);
    assert_about(counters.lost, SENT / 20);
    assert_eq!(arrivals.len() as u64, SENT - counters.lost);
}

#[test]
fn duplication_is_as_frequent_as_its_ratio() {
    let (arrivals, counters) = send_many(Faults { duplicate: Ratio::one_in(20), ..Faults::NONE }, 1);
    assert_about(counters.duplicated, SENT / 20);
    assert_eq!(arrivals.len() as u64, SENT + counters.duplicated);
}

#[test]
fn reordering_is_as_frequent_as_its_ratio() {
    let faults = Faults { reorder: Ratio::one_in(20), reorder_delay: micros(15), ..Faults::NONE };
    let (arrivals, counters) = send_many(faults, 1);
    assert_about(counters.reordered, SENT / 20);
    let late = arrivals.iter().filter(|(at, frame)| at.since(sent_at(number_of(frame))) == micros(15));
    assert_eq!(late.count() as u64, counters.reordered);
    assert!(!in_order(&arrivals));
}

#[test]
fn corruption_is_as_frequent_as_its_ratio_and_flips_one_bit() {
    let (arrivals, counters) = send_many(Faults { corrupt: Ratio::one_in(20), ..Faults::NONE }, 1);
    assert_about(counters.corrupted, SENT / 20);
    let flipped = |i: u64, frame: &Bytes| (number_of(frame) ^ i).count_ones();
    let flips: Vec<_> = arrivals.iter().enumerate().map(|(i, (_, frame))| flipped(i as u64, frame)).collect();
    assert!(flips.iter().all(|flips| *flips <= 1));
    assert_eq!(u64::from(flips.iter().sum::<u32>()), counters.corrupted);
}

#[test]
fn empty_frames_arrive_whole() {
    let mut link = Link::new(Faults { corrupt: Ratio::ALWAYS, ..Faults::NONE }, Rng::new(1));
    handle(&mut link, Instant::ZERO, Input::Frame(Bytes::new()));
    assert_eq!(link.poll(), Some(Bytes::new()));
    assert_eq!(link.counters().corrupted, 0);
}

#[test]
fn one_fault_leaves_the_decisions_of_the_others_alone() {
    let without = send_many(Faults { loss: Ratio::NEVER, ..rough() }, 3).0;
    let (with, counters) = send_many(rough(), 3);
    assert!(counters.lost > 0);
    let mut rest = without.iter();
    assert!(with.iter().all(|arrival| rest.any(|other| other == arrival)), "survivors arrive as they did without loss");

    let (with, _) = send_many(Faults { duplicate: Ratio::ALWAYS, ..rough() }, 3);
    let mut rest = with.iter();
    assert!(send_many(Faults { duplicate: Ratio::NEVER, ..rough() }, 3).0.iter().all(|a| rest.any(|other| other == a)));
}

#[test]
fn ordered_link_never_reorders_nor_damages() {
    let (arrivals, counters) = send_many(Faults { ordered: true, ..rough() }, 1);
    let frames: Vec<_> = arrivals.iter().map(|(_, frame)| number_of(frame)).collect();
    assert_eq!(frames, (0..SENT).collect::<Vec<_>>());
    assert_eq!(counters, Counters { sent: SENT, delivered: SENT, bytes: SENT * 8, ..Counters::default() });
    assert!(arrivals.iter().any(|(at, frame)| at.since(sent_at(number_of(frame))) > micros(20)), "but it is jittered");
}

#[test]
fn frames_in_flight_are_not_overtaken_once_the_link_is_ordered() {
    let mut link = Link::new(Faults { latency: micros(50), ..Faults::NONE }, Rng::new(1));
    handle(&mut link, Instant::ZERO, Input::Frame(frame_of(0)));
    handle(&mut link, Instant::ZERO, Input::Faults(Faults::RELIABLE));
    handle(&mut link, Instant::ZERO, Input::Frame(frame_of(1)));
    let arrivals = drain(&mut link);
    assert_eq!(arrivals, [(at(50), frame_of(0)), (at(50), frame_of(1))]);
}

#[test]
fn cut_loses_what_is_in_flight_and_what_is_sent() {
    for ordered in [false, true] {
        let open = Faults { latency: micros(50), ordered, ..Faults::NONE };
        let mut link = Link::new(open, Rng::new(1));
        handle(&mut link, at(0), Input::Frame(frame_of(0)));
        handle(&mut link, at(10), Input::Faults(Faults { cut: true, ..open }));
        handle(&mut link, at(20), Input::Frame(frame_of(1)));
        assert_eq!(link.counters().lost, 1, "the first is still on its way");
        handle(&mut link, at(50), Input::Timer);
        handle(&mut link, at(60), Input::Faults(open));
        handle(&mut link, at(60), Input::Frame(frame_of(2)));
        assert_eq!(drain(&mut link), [(at(110), frame_of(2))]);
        assert_eq!((link.counters().sent, link.counters().lost), (3, 2));
    }
}

#[test]
fn cut_that_heals_before_delivery_spares_what_is_in_flight() {
    let open = Faults { latency: micros(50), ..Faults::NONE };
    let mut link = Link::new(open, Rng::new(1));
    handle(&mut link, at(0), Input::Frame(frame_of(0)));
    handle(&mut link, at(10), Input::Faults(Faults { cut: true, ..open }));
    handle(&mut link, at(40), Input::Faults(open));
    assert_eq!(drain(&mut link), [(at(50), frame_of(0))]);
}

#[test]
fn cut_does_not_reach_back_to_what_was_due_before_it() {
    let open = Faults { latency: micros(50), ..Faults::NONE };
    let mut link = Link::new(open, Rng::new(1));
    handle(&mut link, at(0), Input::Frame(frame_of(0)));
    handle(&mut link, at(60), Input::Faults(Faults { cut: true, ..open })); // the timer at 50 never came
    assert_eq!(link.poll(), Some(frame_of(0)));
}

#[test]
fn early_timers_do_nothing() {
    let mut link = Link::new(Faults { latency: micros(50), ..Faults::NONE }, Rng::new(1));
    handle(&mut link, at(0), Input::Timer);
    assert_eq!(link.deadline(), None);
    handle(&mut link, at(0), Input::Frame(frame_of(0)));
    let before = link.counters();
    handle(&mut link, at(49), Input::Timer);
    assert_eq!((link.poll(), link.deadline(), link.counters()), (None, Some(at(50)), before));
    assert_eq!(drain(&mut link), [(at(50), frame_of(0))]);
}

#[test]
fn time_that_runs_backwards_counts_as_the_later_one() {
    let mut link = Link::new(Faults { latency: micros(50), ..Faults::NONE }, Rng::new(1));
    handle(&mut link, at(100), Input::Timer);
    handle(&mut link, at(0), Input::Frame(frame_of(0)));
    assert_eq!(link.deadline(), Some(at(150)));
}

#[test]
fn faults_text_names_the_wrong_word() {
    let text = "latency=20ms jitter=5ms loss=1/20 duplicate=1/50 reorder=1/20 reorder_delay=10ms corrupt=1/1000 cut";
    assert_eq!(text.parse::<Faults>().map(|faults| faults.to_string()), Ok(text.to_owned()));
    assert_eq!("".parse(), Ok(Faults::NONE));
    for (text, word) in [
        ("latency=20ms los=1/2", "los=1/2"),
        ("cut loss=3/2", "loss=3/2"),
        ("jitter=5", "jitter=5"),
        ("jitter=ms", "jitter=ms"),
        ("jitter=-5ms", "jitter=-5ms"),
        ("latency=340282366920938463463374607431768211455s", "latency=340282366920938463463374607431768211455s"),
        ("latency", "latency"),
        ("cut=yes", "cut=yes"),
        ("loss=1/2 loss=1/3", "loss=1/3"),
    ] {
        let error = text.parse::<Faults>().expect_err(text).to_string();
        assert!(error.starts_with(&format!("wrong fault {word:?}: expected ")), "{error}");
        assert_eq!(error.lines().count(), 1);
    }
}

quickcheck! {
    fn faults_text_round_trip(durations: (Duration, Duration, u64), ratios: Vec<(u32, u32)>, bytes: (u64, u64, u64), flags: (bool, bool)) -> bool {
        let ratio = |i: usize| ratios.get(i).and_then(|&(n, d)| Ratio::new(n.min(d), d)).unwrap_or(Ratio::NEVER);
        let faults = Faults {
            latency: durations.0,
            jitter: durations.1,
            loss: ratio(0),
            duplicate: ratio(1),
            reorder: ratio(2),
            reorder_delay: Duration::from_millis(durations.2),
            corrupt: ratio(3),
            burst: Burst { begin: ratio(4), end: ratio(5), loss: ratio(6) },
            bandwidth: bytes.0,
            queue: bytes.1,
            mtu: bytes.2,
            cut: flags.0,
            ordered: flags.1,
        };
        faults.to_string().parse() == Ok(faults)
    }

    fn when_the_caller_polls_does_not_matter(seed: u64, steps: Vec<(u8, u8, bool)>) -> bool {
        let (mut eager, mut lazy) = (Link::new(rough(), Rng::new(seed)), Link::new(rough(), Rng::new(seed)));
        let (mut from_eager, mut from_lazy) = (Vec::new(), Vec::new());
        let mut now = Instant::ZERO;
        for (gap, kind, poll) in steps {
            now = now + micros(u64::from(gap));
            let input = input_of(kind);
            handle(&mut eager, now, input.clone());
            handle(&mut lazy, now, input);
            from_eager.extend(std::iter::from_fn(|| eager.poll()));
            if poll {
                from_lazy.extend(lazy.poll());
            }
            if eager.deadline() != lazy.deadline() || eager.counters() != lazy.counters() {
                return false;
            }
        }
        from_lazy.extend(std::iter::from_fn(|| lazy.poll()));
        from_eager == from_lazy && eager == lazy
    }

    fn timers_decide_when_but_not_what(seed: u64, steps: Vec<(u8, u8, bool)>) -> bool {
        let (mut timely, mut late) = (Link::new(rough(), Rng::new(seed)), Link::new(rough(), Rng::new(seed)));
        let mut now = Instant::ZERO;
        for (gap, kind, spurious) in steps {
            let next = now + micros(u64::from(gap));
            while let Some(deadline) = timely.deadline().filter(|deadline| *deadline <= next) {
                handle(&mut timely, deadline, Input::Timer);
            }
            if spurious {
                handle(&mut timely, next, Input::Timer);
            }
            handle(&mut timely, next, input_of(kind));
            handle(&mut late, next, input_of(kind));
            now = next;
        }
        timely == late
    }

    fn every_frame_is_accounted_for(seed: u64, steps: Vec<(u8, u8)>) -> bool {
        let mut link = Link::new(rough(), Rng::new(seed));
        let mut now = Instant::ZERO;
        for (gap, kind) in steps {
            now = now + micros(u64::from(gap));
            handle(&mut link, now, input_of(kind));
        }
        let arrived = drain(&mut link).len() as u64;
        let counters = link.counters();
        counters.delivered == arrived && counters.sent + counters.duplicated == counters.delivered + counters.lost
    }
}

fn rough() -> Faults {
    Faults {
        latency: micros(20),
        jitter: micros(50),
        loss: Ratio::one_in(5),
        duplicate: Ratio::one_in(5),
        reorder: Ratio::one_in(5),
        reorder_delay: micros(100),
        corrupt: Ratio::one_in(5),
        ..Faults::NONE
    }
}

fn input_of(kind: u8) -> Input {
    match kind {
        0..=19 => Input::Timer,
        20..=29 => Input::Faults(Faults { cut: true, ..rough() }),
        30..=39 => Input::Faults(Faults { ordered: true, ..rough() }),
        40..=59 => Input::Faults(rough()),
        _ => Input::Frame(Bytes::from(vec![kind; usize::from(kind % 4)])),
    }
}

/// Sends numbered frames ten microseconds apart, with a timer at every deadline.
fn send_many(faults: Faults, seed: u64) -> (Arrivals, Counters) {
    let mut link = Link::new(faults, Rng::new(seed));
    let mut arrivals = Vec::new();
    for number in 0..SENT {
        run_until(&mut link, sent_at(number), &mut arrivals);
        handle(&mut link, sent_at(number), Input::Frame(frame_of(number)));
        arrivals.extend(std::iter::from_fn(|| link.poll()).map(|frame| (sent_at(number), frame)));
    }
    arrivals.extend(drain(&mut link));
    (arrivals, link.counters())
}

/// Everything that still arrives; what waits to be polled already has no time of arrival and is stamped zero.
fn drain(link: &mut Link) -> Arrivals {
    let mut arrivals: Arrivals = std::iter::from_fn(|| link.poll()).map(|frame| (Instant::ZERO, frame)).collect();
    run_until(link, Instant::from_micros(u64::MAX), &mut arrivals);
    arrivals
}

fn run_until(link: &mut Link, end: Instant, arrivals: &mut Arrivals) {
    while let Some(deadline) = link.deadline().filter(|deadline| *deadline <= end) {
        handle(link, deadline, Input::Timer);
        arrivals.extend(std::iter::from_fn(|| link.poll()).map(|frame| (deadline, frame)));
    }
}

fn handle(link: &mut Link, now: Instant, input: Input) {
    let Ok(()) = link.handle(now, input);
}

fn in_order(arrivals: &Arrivals) -> bool {
    arrivals.is_sorted_by_key(|(_, frame)| number_of(frame))
}

/// Within a fifth: over four standard deviations for the counts used here.
fn assert_about(count: u64, expected: u64) {
    assert!(count.abs_diff(expected) <= expected / 5, "{count}, not about {expected}");
}

fn sent_at(number: u64) -> Instant {
    at(number * 10)
}

fn at(micros: u64) -> Instant {
    Instant::from_micros(micros)
}

fn micros(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

fn frame_of(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

fn number_of(frame: &Bytes) -> u64 {
    u64::from_be_bytes(frame[..].try_into().expect("frames are eight bytes"))
}
