//! Bare sessions are recorded and run again as replicas are: with nothing of a token in the trace, on every transport.

mod common;

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use antiphon::log::Log;
use antiphon::op::{Body, ReplicaId, Timeline};
use antiphon::rng::Rng;
use antiphon::session::{Config, Event, Input, Live, Local, Opening, Output, Transport};
use antiphon::timeline::Opens;
use antiphon::wire::changes::pack;
use antiphon::{Instant, Machine, Session};
use antiphon_recorder::session::Setup;
use antiphon_recorder::{End as Ending, Memory, NotReplayable, Options, Outcome, Recorder, Told as _, Trace};
use bytes::Bytes;
use common::{DATAGRAM, run_of, with_payload};
use quickcheck::quickcheck;

const TOKENS: [&str; 2] = ["7f#kQz!v0^TjW-eG4hR", "M2&wXu?8sL~bN+dY6pC1"];
/// So much of a token must not be anywhere.
const PART: usize = 5;

/// A recorded session, and the log that its host has in memory.
struct End {
    session: Recorder<Session>,
    log: Log,
    shown: Vec<Option<Bytes>>,
}

impl End {
    fn new(number: u8, transport: Transport, token: &str, memory: Memory, redacted: bool) -> Self {
        let (replica, timeline) = (ReplicaId([number; 16]), Timeline::new(number.into()));
        let token = Some(Bytes::copy_from_slice(token.as_bytes()));
        let local = Local { replica, timeline, previous: None, nonce: 1000 + u64::from(number), token };
        let setup = Setup { now: Instant::ZERO, config: Config { transport, ..Config::default() }, local };
        let session = Recorder::new(setup, memory, Options { redacted, began: 0 });
        Self { session, log: Log::new(Arc::new(Opens::first(timeline))), shown: Vec::new() }
    }

    fn append(&mut self, now: Instant, body: &[u8]) {
        let (author, from) = (self.session.replica(), self.log.tail());
        self.log.append(author, Body::Bytes(Bytes::copy_from_slice(body)));
        let begins = self.log.history().current().begins;
        let entry = self.log.entries().next_back().expect("it was appended").clone();
        let author = self.log.author(author);
        let packed = pack(0, begins, from, [&entry.op].into_iter(), |_| author, 1000, |_| from + 1);
        let live = packed.map(|(packed, _)| Live::Packed([packed].into()));
        let held = self.session.held(0).map_or(0, |cursor| cursor.position);
        let advance = self.advance(held, live);
        self.session.handle(now, advance).expect("it is open");
    }

    fn advance(&self, held: u64, live: Option<Live>) -> Input {
        Input::Advance { number: 0, tail: self.log.tail(), digest: self.log.heads().digest(), held, live }
    }

    fn answer(&mut self, output: Output) -> Option<Input> {
        Some(match output {
            Output::Authenticate { token, .. } => {
                self.shown.push(token);
                Input::Authenticated(Ok(()))
            }
            Output::Event(Event::Connected { .. }) => {
                Input::Open(Opening::of(&self.log, "notes".parse().ok()?, 0).into())
            }
            Output::Take { origin, to, ops, .. } => {
                let from = self.log.tail();
                ops.into_iter().for_each(|op| _ = self.log.take(op, Some(origin)));
                self.advance(to, Some(Live::Brought { by: origin, from, to: self.log.tail() }))
            }
            Output::Load { number, from, max_cost } => Input::Loaded { number, chunk: self.log.read(from, max_cost)? },
            Output::Compare { number, heads } => Input::Compared { number, comparison: self.log.compare(&heads)? },
            _ => return None,
        })
    }
}

/// What two sessions recorded that meet, catch up, and write. So many frames of a hundred are lost.
fn recorded(transport: Transport, lost: u64, tokens: [&str; 2], redacted: bool) -> [Memory; 2] {
    let memories = [1, 2].map(|_| Memory::new(1 << 20));
    let mut ends = [0, 1].map(|end| End::new(end as u8 + 1, transport, tokens[end], memories[end].clone(), redacted));
    let author = ReplicaId([1; 16]);
    for number in 0..10 {
        let body = format!("{number} of before they met, which is long enough to be named again");
        ends[0].log.append(author, Body::Bytes(body.into()));
    }
    let (mut now, mut inboxes) = (Instant::ZERO, [VecDeque::new(), VecDeque::new()]);
    let (mut chance, mut rounds) = (Rng::new(lost), 0);
    for millis in 1..9000 {
        let open = ends.iter().all(|end| end.session.documents().count() == 1);
        if open && rounds < 9 && millis % 50 == 0 {
            let (body, large) = (format!("{rounds} of later"), [b'z'; 3000]);
            ends[0].append(now, body.as_bytes());
            ends[1].append(now, if rounds == 5 { &large } else { b"of the second" });
            rounds += 1;
        }
        loop {
            let mut quiet = true;
            for end in 0..2 {
                while let Some(output) = ends[end].session.poll() {
                    quiet = false;
                    if let Output::Transmit(frame) = output {
                        if chance.below(100) >= lost {
                            inboxes[1 - end].push_back(frame);
                        }
                    } else if let Some(input) = ends[end].answer(output) {
                        ends[end].session.handle(now, input).expect("it was asked");
                    }
                }
                while let Some(frame) = inboxes[end].pop_front() {
                    quiet = false;
                    ends[end].session.handle(now, Input::Received(frame)).expect("frames are never misuse");
                }
            }
            if quiet {
                break;
            }
        }
        now = Instant::from_millis(millis);
        for end in &mut ends {
            if end.session.deadline().is_some_and(|due| due <= now) {
                end.session.handle(now, Input::Timer).expect("it may come at any time");
            }
        }
    }
    assert_eq!(ends[0].log.heads(), ends[1].log.heads(), "they are in step");
    assert_eq!(ends[0].log.tail(), 28);
    for (end, number) in ends.iter_mut().zip([1, 0]) {
        assert!(end.shown.iter().all(|token| token.as_deref() == Some(tokens[number].as_bytes())), "hosts see tokens");
        end.session.finish();
    }
    memories
}

const LINKS: [(Transport, u64); 4] = [(Transport::Reliable, 0), (DATAGRAM, 0), (DATAGRAM, 10), (DATAGRAM, 20)];

#[test]
fn every_digest_is_reproduced() {
    for (transport, lost) in LINKS {
        for memory in recorded(transport, lost, TOKENS, false) {
            let trace = Trace::read(memory.segments()).expect("it was just written");
            let mut replay = run_of(&trace).replay::<Session>().expect("it has its beginning");
            let mut frames = 0;
            for step in replay.by_ref() {
                assert!(!step.differs(), "event {}: {:?}", step.event.number, step.event.input);
                frames += step.outputs.iter().filter(|output| matches!(output, Output::Transmit(_))).count();
            }
            assert!(frames > 10, "{frames}");
            assert_eq!(replay.into_events().end(), Some(&Ending::Finished));
        }
    }
}

#[test]
fn tokens_are_in_neither_trace() {
    for (transport, lost) in LINKS {
        for redacted in [false, true] {
            for memory in recorded(transport, lost, TOKENS, redacted) {
                let bytes = memory.segments().concat();
                for part in TOKENS.iter().flat_map(|token| token.as_bytes().windows(PART)) {
                    assert!(!bytes.windows(PART).any(|window| window == part), "{part:?}");
                }
            }
        }
    }
}

/// Digests and the hashes in Welcomes are over stars too: short tokens could be guessed by them.
#[test]
fn two_tokens_of_the_same_length_leave_the_same_trace() {
    for (transport, lost) in LINKS {
        let traces = |tokens| {
            recorded(transport, lost, tokens, false).map(|memory| {
                let trace = Trace::read(memory.segments()).expect("it was just written");
                let events = run_of(&trace).events::<Session>();
                let events: Vec<_> = events.map(|event| (event.at, event.input, event.outcome)).collect();
                (run_of(&trace).setup::<Session>().expect("it has its beginning"), events)
            })
        };
        let is = traces(["one secret", "another"]);
        assert!(is == traces(["two secret", "brother"]));
        assert!(is != traces(["a longer secret", "another"]));
    }
}

#[test]
fn another_input_is_named() {
    let segments = recorded(Transport::Reliable, 0, TOKENS, false)[0].segments();
    let trace = Trace::read(segments.clone()).expect("it was just written");
    let mut loaded = run_of(&trace).events::<Session>();
    let event = loaded.find(|event| matches!(event.input, Input::Loaded { .. })).expect("the second lacks ten ops");
    let forged = with_payload(&segments[0], event.number, |payload| {
        let place = payload.windows(9).position(|window| window == b"of before");
        payload[place.expect("the body is in it")] ^= 1;
    });
    let trace = Trace::read([forged]).expect("its header is right");
    let steps: Vec<_> = run_of(&trace).replay::<Session>().expect("it has its beginning").collect();
    let last = steps.last().expect("there are steps");
    assert!(last.differs());
    assert_eq!(last.event.number, event.number, "the entries are sent at once");
}

#[test]
fn a_redacted_recording_has_no_bodies_and_is_told() {
    for (transport, lost) in LINKS {
        let memories = recorded(transport, lost, TOKENS, true);
        let mut told = Vec::new();
        for memory in memories {
            let bytes = memory.segments().concat();
            for part in [&b"of before"[..], b"of later", b"of the second", b"zzzz"] {
                assert!(!bytes.windows(part.len()).any(|window| window == part), "{part:?}");
            }
            let trace = Trace::read(memory.segments()).expect("it was just written");
            let run = run_of(&trace);
            assert_eq!(run.replay::<Session>().err(), Some(NotReplayable::Redacted));
            let mut transcript = Session::transcript(run);
            let (mut sent, mut received, mut left_out) = (Vec::new(), Vec::new(), 0);
            for event in run.events::<Session>() {
                assert_eq!(event.outcome, Outcome::Digest(0));
                left_out += event.left_out;
                let line = Session::tell_input(&mut transcript, &event.input);
                received.extend((line.arrow == "<-").then_some((line.kind, line.document)));
                for kept in event.kept {
                    let line = Session::tell_output(&mut transcript, &kept.into());
                    sent.push((line.kind, line.document));
                }
            }
            assert!(left_out > 3000, "{left_out}: how much it was is known");
            assert!(sent.contains(&("Hello", None)) && received.contains(&("Hello", None)), "{sent:?}");
            told.push([sent, received]);
        }
        if lost == 0 {
            told.iter_mut().flatten().for_each(|frames| frames.sort());
            assert!(told[0][0] == told[1][1] && told[0][1] == told[1][0], "what one sends, the other receives");
        }
    }
}

#[test]
fn documents_are_told_by_name() {
    for (transport, lost) in LINKS {
        for memory in recorded(transport, lost, TOKENS, false) {
            let trace = Trace::read(memory.segments()).expect("it was just written");
            let mut transcript = Session::transcript(run_of(&trace));
            let mut kinds = Vec::new();
            for step in run_of(&trace).replay::<Session>().expect("it has its beginning") {
                let mut lines = vec![Session::tell_input(&mut transcript, &step.event.input)];
                lines.extend(step.outputs.iter().map(|output| Session::tell_output(&mut transcript, output)));
                for line in lines {
                    assert!(line.fields.iter().all(|(name, _)| *name != "document"), "{line}");
                    let of_document =
                        ["Open", "Ack", "Take", "Durable", "Acknowledged", "In step"].contains(&line.kind);
                    assert!(!of_document || line.document.is_some(), "{line}");
                    kinds.push(line.kind);
                }
            }
            for kind in ["Hello", "Ask", "Answer", "Live session", "Open", "Take", "Durable", "Ack", "In step"] {
                assert!(kinds.contains(&kind), "{kind} is not among {kinds:?}");
            }
        }
    }
}

/// Numbers in inputs are taken for what they are, not for how much there is.
#[test]
fn an_authors_number_takes_no_room() {
    let memory = &recorded(Transport::Reliable, 0, TOKENS, false)[0];
    let trace = Trace::read(memory.segments()).expect("it was just written");
    let run = run_of(&trace);
    let again = Memory::new(1 << 20);
    let setup = run.setup::<Session>().expect("it has its beginning");
    let info = allocation_counter::measure(|| {
        let mut session: Recorder<Session> = Recorder::new(setup, again.clone(), Options::default());
        for mut event in run.events::<Session>() {
            if let Input::Loaded { chunk, .. } = &mut event.input {
                chunk.authors.values_mut().for_each(|author| author.number = u32::MAX);
            }
            let _ = session.handle(event.at, event.input);
        }
        session.finish();
        let trace = Trace::read(again.segments()).expect("it was just written");
        let steps = run_of(&trace).replay::<Session>().expect("it has its beginning");
        assert!(steps.count() > 20);
    });
    assert!(info.bytes_max < 8 << 20, "{} bytes", info.bytes_max);
}

quickcheck! {
    /// With checksums that are right, so that the machine gets to see it.
    fn whatever_is_made_up_is_refused_or_run(changes: Vec<(usize, usize, u8)>) -> bool {
        static SEGMENT: OnceLock<Bytes> = OnceLock::new();
        let segment = SEGMENT.get_or_init(|| recorded(Transport::Reliable, 0, TOKENS, false)[0].segments().remove(0));
        let events = common::records(segment).len() - 1;
        let forged = changes.into_iter().fold(segment.clone(), |segment, (number, place, bits)| {
            with_payload(&segment, (number % events) as u64, |payload| {
                let place = place % payload.len();
                payload[place] ^= bits;
            })
        });
        let trace = Trace::read([forged]).expect("its header is right");
        let mut replay = run_of(&trace).replay::<Session>().expect("it has its beginning");
        let steps = replay.by_ref().count();
        let mut rest = replay.into_events();
        let left = rest.by_ref().count();
        steps + left <= events && rest.end().is_some()
    }
}
