//! Floods: a peer that sends without end costs work in proportion to its bytes, holds no more memory than was promised
//! to it, and is refused where it goes beyond that.

mod common;

use allocation_counter::AllocationInfo;
use antiphon::codes::Code;
use antiphon::wire::*;
use bytes::Bytes;
use common::crafted::*;
use common::victim::*;
use common::*;

// -------------------------------------------------------------------------------------------- credit

#[test]
fn more_than_the_credit_is_refused_and_never_held() {
    let frames_of = |len: usize| move |number: u64| bulk(number * 10, number * 10 + 1, 10, len);
    for target in TARGETS {
        for len in [0, 20, 500] {
            let mut victim = Victim::at(target, RELIABLE, Stage::Opened);
            victim.stall(&doc());
            victim.quiet = true;
            let frame = frames_of(len);
            for number in 0..1000 {
                victim.feed(frame(number));
                assert!(victim.holds() <= u64::from(limits().window) + TAIL, "{target:?} holds {}", victim.holds());
            }
            assert_eq!(victim.ending().map(|ending| ending.code), Some(Code::OVERRUN), "{target:?}, {len} bytes");
        }
    }
}

#[test]
fn a_second_op_beside_a_lone_one_is_refused() {
    for target in TARGETS {
        let mut victim = Victim::at(target, RELIABLE, Stage::Opened);
        victim.stall(&doc());
        let total = limits().op;
        for offset in (0..total).step_by(4096) {
            victim.feed(part(OURS, 0, offset, total, 4096));
        }
        assert_eq!(victim.ending(), None, "{target:?}: one op may be larger than the window");
        victim.feed(live(1, 2, b"x"));
        assert_eq!(victim.ending().map(|ending| ending.code), Some(Code::OVERRUN), "{target:?}");
    }
}

// -------------------------------------------------------------------------------------------- floods

/// The `n`th frame of a flood.
type Frames = fn(u64) -> Bytes;

/// A family of floods: what the honest part is, and the `n`th frame.
struct Flood {
    name: &'static str,
    setup: Setup,
    stage: Stage,
    frame: Frames,
    /// Whether the victim's transport takes nothing.
    choked: bool,
    /// Bytes that eight times as many frames may leave in memory beyond what the few do.
    may_hold: u64,
}

fn floods() -> Vec<Flood> {
    fn flood(name: &'static str, stage: Stage, frame: Frames) -> Flood {
        Flood { name, setup: RELIABLE, stage, frame, choked: false, may_hold: 8 << 10 }
    }
    fn every_other(number: u64, frames: [Frames; 2]) -> Bytes {
        frames[number as usize % 2](number / 2)
    }
    vec![
        flood("pings that ask for everything", Stage::Opened, ping),
        flood("pongs", Stage::Opened, pong),
        flood("what may be ignored", Stage::Opened, |_| raw(0x41, &[1], b"")),
        flood("presence", Stage::Opened, |_| raw(0x40, &[1, 0], b"")),
        flood("duplicates", Stage::Opened, |_| live(0, 1, b"x")),
        flood("one gap again and again", Stage::Opened, |_| live(5, 1, b"x")),
        flood("a new gap after each skip", Stage::Opened, |number| {
            every_other(number, [|number| nothing(number, 1), |number| live(number + 5, 1, b"x")])
        }),
        flood("skips in acknowledgements, and gaps", Stage::Opened, |number| {
            every_other(
                number,
                [
                    |number| {
                        let skip = Some(Skip { document: OURS, from: number, to: number + 1 });
                        ack_with(number + 1, 0, 0, |ack| ack.skip = skip)
                    },
                    |number| live(number + 5, 1, b"x"),
                ],
            )
        }),
        flood("bytes of one op, and gaps", Stage::Opened, |number| {
            every_other(number, [|number| part(OURS, 0, number as u32, 60_000, 1), |_| live(5, 1, b"x")])
        }),
        Flood {
            may_hold: 2 * 60_000, // it is allowed that much, once
            ..flood("an op that never ends", Stage::Opened, |number| part(OURS, 0, number as u32, 60_000, 1))
        },
        flood("the first part for ever", Stage::Opened, |_| part(OURS, 0, 0, 60_000, 100)),
        flood("an op that is begun and skipped", Stage::Opened, |number| {
            every_other(number, [|number| part(OURS, number, 0, 60_000, 100), |number| nothing(number, 1)])
        }),
        flood("acknowledgements of nothing", Stage::Opened, |number| ack(number + 1, 0, 0)),
        flood("acknowledgements up and down", Stage::Opened, |number| ack(number + 1, number % 4, 0)),
        flood("acknowledgements of what is not open", Stage::Live, |number| ack(number + 1, 0, 0)),
        flood("credit up and down", Stage::Opened, |number| credit(number + 1, number % 2 * 1000)),
        flood("rewinds of empty ranges", Stage::Opened, |number| {
            rewind(number + 1, 0, Point::at(2), Some(Point::at(1)))
        }),
        flood("rewinds into nowhere", Stage::Opened, |number| {
            rewind(number + 1, 0, Point { position: 0, offset: 100 + number as u32 }, Some(Point::at(2)))
        }),
        Flood {
            choked: true,
            ..flood("rewinds that nobody can answer", Stage::Opened, |number| {
                rewind(number + 1, 0, Point { position: 0, offset: number as u32 }, Some(Point::at(2)))
            })
        },
        flood("rewinds of one op", Stage::Opened, |number| rewind(number + 1, 0, Point::at(2), None)),
        flood("authors told again", Stage::Opened, |_| author(OURS, 0, stranger(), 0)),
        flood("heads that never end", Stage::Heads, |_| heads(0, false, &[])),
        flood("starts of others", Stage::Opened, |_| resume(99, None)),
        flood("Close of what is not open", Stage::Opened, |_| close(&document("other"))),
        flood("open, and close again", Stage::Live, |number| {
            every_other(number, [|_| open(OURS, &document("other"), |_| {}), |_| close(&document("other"))])
        }),
        flood("another document each time", Stage::Live, |number| {
            every_other(
                number,
                [
                    |number| open(OURS, &document(&format!("{number:06}")), |_| {}),
                    |number| close(&document(&format!("{number:06}"))),
                ],
            )
        }),
        flood("too many documents", Stage::Live, |number| {
            open(number as u32 + 100, &document(&format!("{number:06}")), |_| {})
        }),
        flood("an author's gap", Stage::Opened, |number| {
            every_other(number, [|_| live(0, 5, b"x"), |_| open(OURS, &doc(), |_| {})])
        }),
    ]
}

/// What is allocated in all, and held at most, while `count` frames of a flood come.
fn suffer(target: Target, flood: &Flood, count: u64) -> (AllocationInfo, u64, Victim) {
    let mut victim = Victim::at(target, flood.setup, flood.stage);
    victim.quiet = true;
    if flood.choked {
        victim.choke();
    }
    let frames: Vec<_> = (0..count).map(|number| victim.sealed((flood.frame)(number))).collect();
    let _kept = frames.clone();
    let before = victim.fed;
    let used = allocation_counter::measure(|| {
        for (number, frame) in frames.iter().enumerate() {
            victim.feed(frame.clone());
            if number % 100 == 99 {
                victim.wait(MILLISECOND);
                victim.tidy();
            }
        }
    });
    let fed = (victim.fed - before) as u64;
    (used, fed, victim)
}

#[test]
fn floods_cost_no_more_than_their_bytes_and_leave_nothing_behind() {
    let mut wrong = Vec::new();
    for flood in floods() {
        for target in TARGETS {
            let (few, _, _) = suffer(target, &flood, 1000);
            let (many, fed, victim) = suffer(target, &flood, 8000);
            victim.assert_peers_fault(flood.name);
            let name = flood.name;
            let linear = many.bytes_total <= 9 * few.bytes_total + 4096 && many.count_total <= 9 * few.count_total + 64;
            let held = many.bytes_max <= few.bytes_max * 5 / 4 + flood.may_hold;
            // Who asks for an op again gets it: that is the most that a byte can ask for.
            let answered = victim.bytes_sent as u64 <= 5 * fed + 4096;
            if !(linear && held && answered) {
                wrong.push(format!(
                    "{target:?} {name}: {fed} bytes, {} sent\n   {few:?}\n   {many:?}",
                    victim.bytes_sent
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// However many documents are open, a small frame costs little.
#[test]
fn a_frame_costs_the_same_with_many_documents_open() {
    let cost = |target: Target, documents: u32, frame: Frames| {
        let mut victim = Victim::at(target, Setup { documents: 10_000, ..RELIABLE }, Stage::Opened);
        victim.quiet = true;
        for number in 0..documents {
            victim.feed(open(100 + number, &document(&format!("{number:05}")), |_| {}));
        }
        let frames: Vec<_> = (0..1000).map(frame).collect();
        let used = allocation_counter::measure(|| frames.into_iter().for_each(|frame| victim.feed(frame)));
        assert_eq!(victim.ending(), None);
        used.bytes_total
    };
    for target in TARGETS {
        let frames: [Frames; 3] = [ping, |number| ack(number + 1, 0, 0), |_| live(5, 1, b"x")];
        for frame in frames {
            let (few, many) = (cost(target, 1, frame), cost(target, 1000, frame));
            assert!(many <= few * 2 + 4096, "{target:?}: {few} bytes with one document, {many} with a thousand");
        }
    }
}

/// On datagrams, what comes too early is kept, and no more than the window of it.
#[test]
fn what_comes_early_is_kept_within_the_window() {
    let floods: [(&str, Frames); 4] = [
        ("ops beyond a gap", |number| live(number + 1, number + 2, &[7; 100])),
        ("nothing beyond a gap", |number| nothing(2 * number + 1, 1)),
        ("tiny ops beyond a gap", |number| bulk(10 * number + 1, 10 * number + 2, 10, 0)),
        ("control messages beyond a gap", |number| Message::Reliable(number + 10, resume(99, None)).encode()),
    ];
    for (name, frame) in floods {
        for target in TARGETS {
            let mut victim = Victim::at(target, DATAGRAM, Stage::Opened);
            victim.quiet = true;
            let frames: Vec<_> = (0..20_000).map(|number| victim.sealed(frame(number))).collect();
            let used = allocation_counter::measure(|| {
                for (number, datagram) in frames.iter().enumerate() {
                    victim.feed(Bytes::copy_from_slice(datagram));
                    if number % 1000 == 999 {
                        victim.wait(MILLISECOND);
                    }
                }
            });
            assert_eq!(victim.ending(), None, "{target:?}: {name}");
            let bound = 8 * u64::from(limits().window);
            assert!(used.bytes_max <= bound, "{target:?}: {name}: {used:?}");
        }
    }
}
