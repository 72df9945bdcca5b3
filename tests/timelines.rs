//! Timelines: where each of them ended, against a model that records every one and forgets nothing.

use std::sync::Arc;

use antiphon::op::Timeline;
use antiphon::timeline::{History, Opens, TIMELINES_MAX, TimelineRecord};
use quickcheck::{Arbitrary, Gen, QuickCheck};

/// What happens to one document of a replica.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The replica is opened again, after the document has lost so many of its newest entries.
    Open { lost: u64 },
    /// The document was evicted and is loaded again in the same open.
    Reload,
    /// So many entries become durable.
    Append { count: u64 },
    /// A peer holds more than the log has: a timeline of the document's own.
    Begin,
    /// The log is built anew, with so many entries.
    Reset { tail: u64 },
}

impl Arbitrary for Step {
    fn arbitrary(g: &mut Gen) -> Self {
        let small = u64::arbitrary(g) % 4;
        match u8::arbitrary(g) % 32 {
            0..10 => Self::Append { count: 1 + small },
            10..18 => Self::Open { lost: 0 },
            18..22 => Self::Open { lost: small },
            22..25 => Self::Reload,
            25..31 => Self::Begin,
            _ => Self::Reset { tail: small },
        }
    }
}

/// One timeline, recorded or not.
#[derive(Clone, Copy, Debug)]
struct Span {
    timeline: Timeline,
    open: u64,
    begins: u64,
    /// It was drawn for the document, not by an open.
    own: bool,
}

struct Model {
    opens: Opens,
    history: History,
    tail: u64,
    forgotten: u64,
    /// What storage has: the records, and whether each came with the entry at the position where it begins.
    stored: Vec<(TimelineRecord, bool)>,
    /// All timelines, oldest first; those below `reset_at` ended in a reset.
    spans: Vec<Span>,
    reset_at: usize,
    drawn: u64,
}

impl Model {
    fn new() -> Self {
        let first = Timeline::new(1);
        let opens = Opens::first(first);
        let history = History::load(Arc::new(opens.clone()), Vec::new(), 0, 0);
        let spans = vec![Span { timeline: first, open: 1, begins: 0, own: false }];
        Self { opens, history, tail: 0, forgotten: 0, stored: Vec::new(), spans, reset_at: 0, drawn: 1 }
    }

    fn draw(&mut self) -> Timeline {
        self.drawn += 1;
        Timeline::new(self.drawn)
    }

    /// Timelines of the document's own in which it did not grow are known to nobody once it is loaded anew.
    fn forget_unstored(&mut self) {
        while self.spans.last().is_some_and(|last| last.own && !self.is_stored(last.timeline)) {
            self.spans.pop();
        }
    }

    fn is_stored(&self, timeline: Timeline) -> bool {
        self.stored.iter().any(|(record, _)| record.timeline == timeline)
    }

    fn load(&mut self) {
        let records = self.stored.iter().map(|(record, _)| *record).collect();
        self.history = History::load(Arc::new(self.opens.clone()), records, self.forgotten, self.tail);
    }

    fn step(&mut self, step: Step) {
        let open = self.opens.count();
        match step {
            Step::Open { lost } => {
                self.forget_unstored();
                self.tail -= lost.min(self.tail);
                // Storage is prefix-consistent: a record is gone with the entry that it came with.
                let tail = self.tail;
                self.stored.retain(|(record, with_entry)| record.begins + u64::from(*with_entry) <= tail);
                let timeline = self.draw();
                self.opens.reopen(timeline);
                self.spans.push(Span { timeline, open: open + 1, begins: self.tail, own: false });
                self.load();
            }
            Step::Reload => {
                self.forget_unstored();
                self.load();
            }
            Step::Append { count } => {
                if self.history.unrecorded() {
                    self.stored.push((self.history.current(), true));
                }
                self.history.recorded();
                self.tail += count;
            }
            Step::Begin => {
                let timeline = self.draw();
                self.history.begin(timeline, self.tail);
                self.spans.push(Span { timeline, open, begins: self.tail, own: true });
            }
            Step::Reset { tail } => {
                let timeline = self.draw();
                (self.tail, self.forgotten) = (tail, open);
                self.stored = vec![(TimelineRecord { open, timeline, begins: tail }, false)];
                self.reset_at = self.spans.len();
                self.spans.push(Span { timeline, open, begins: tail, own: true });
                self.load();
            }
        }
    }

    /// Where the timeline at `index` ended: no entry from there on is one that it gave a position to.
    fn end(&self, index: usize) -> Option<u64> {
        let later = self.spans[index + 1..].iter().map(|span| span.begins).min();
        (index >= self.reset_at).then_some(later.unwrap_or(self.tail))
    }

    /// Whether the history must remember the timeline at `index`.
    fn must_remember(&self, index: usize) -> bool {
        let span = &self.spans[index];
        let stored = self.stored.iter().rev().take(TIMELINES_MAX).any(|(record, _)| record.timeline == span.timeline);
        let drawn = !span.own && span.open + TIMELINES_MAX as u64 > self.opens.count();
        index >= self.reset_at && (stored || drawn && self.stored.len() < TIMELINES_MAX)
    }

    fn check(&self) {
        let last = self.spans.len() - 1;
        let (current, span) = (self.history.current(), self.spans[last]);
        assert_eq!((current.timeline, current.open, current.begins), (span.timeline, span.open, span.begins));
        assert_eq!(self.history.unrecorded(), !self.is_stored(current.timeline));
        for index in 0..=last {
            let timeline = self.spans[index].timeline;
            match self.history.end(timeline, self.tail) {
                Some(end) => assert_eq!(Some(end), self.end(index), "end of {:?}", self.spans[index]),
                None => assert!(!self.must_remember(index) && index < last, "{:?} forgotten", self.spans[index]),
            }
        }
        match self.history.previous() {
            Some(previous) => {
                let index = self.spans.iter().position(|span| span.timeline == previous).unwrap();
                assert!(index < last, "the current timeline is its own previous one");
                assert_eq!(self.end(index), Some(span.begins), "previous is {:?}", self.spans[index]);
            }
            None => assert!(last == 0 || !self.must_remember(last - 1), "{:?} forgotten", self.spans[last - 1]),
        }
    }
}

fn run(steps: Vec<Step>) -> bool {
    let mut model = Model::new();
    model.check();
    for step in steps {
        model.step(step);
        model.check();
    }
    true
}

#[test]
fn history_agrees_with_the_model() {
    QuickCheck::new().tests(2000).quickcheck(run as fn(Vec<Step>) -> bool);
}

/// Long enough for both limits of 64 to matter.
#[test]
fn history_agrees_with_the_model_over_many_opens() {
    QuickCheck::new().rng(Gen::new(600)).tests(60).quickcheck(run as fn(Vec<Step>) -> bool);
}

#[test]
fn the_oldest_timelines_are_forgotten() {
    for with_appends in [false, true] {
        let mut model = Model::new();
        for open in 1..200 {
            if with_appends {
                model.step(Step::Append { count: 1 });
            }
            model.step(Step::Open { lost: 0 });
            model.check();
            let known = |index: usize| model.history.end(model.spans[index].timeline, model.tail).is_some();
            let remembered = (0..model.spans.len()).filter(|index| known(*index)).count();
            let expected = if with_appends { TIMELINES_MAX + 1 } else { TIMELINES_MAX };
            assert_eq!(remembered, expected.min(open + 1));
        }
    }
}

/// A timeline whose end was among the records that were dropped: its end is not where the oldest record left begins.
#[test]
fn an_end_that_was_dropped_is_not_made_up() {
    let mut model = Model::new();
    model.step(Step::Append { count: 5 });
    model.step(Step::Open { lost: 3 });
    let opened = Timeline::new(2);
    for _ in 0..=TIMELINES_MAX {
        model.step(Step::Begin);
        model.step(Step::Append { count: 1 });
        model.check();
    }
    assert_eq!(model.history.end(opened, model.tail), None);
}

#[test]
fn a_reset_forgets_all_timelines_before() {
    let mut model = Model::new();
    for step in [Step::Append { count: 3 }, Step::Open { lost: 0 }, Step::Open { lost: 0 }, Step::Reset { tail: 2 }] {
        model.step(step);
    }
    for timeline in 1..=3 {
        assert_eq!(model.history.end(Timeline::new(timeline), 2), None);
    }
    assert_eq!(model.history.previous(), None);
    assert_eq!(model.history.end(Timeline::new(4), 2), Some(2));
    model.step(Step::Open { lost: 0 });
    assert_eq!(model.history.previous(), Some(Timeline::new(4)));
}

#[test]
fn opens_are_counted_and_the_last_ones_kept() {
    let mut opens = Opens::first(Timeline::new(1));
    assert_eq!((opens.count(), opens.current(), opens.previous()), (1, Timeline::new(1), None));
    for open in 2..100 {
        opens.reopen(Timeline::new(open));
        assert_eq!((opens.count(), opens.current()), (open, Timeline::new(open)));
        assert_eq!(opens.previous(), Some(Timeline::new(open - 1)));
    }
}

#[test]
fn opens_survive_storage_and_damaged_ones_are_refused() {
    let mut opens = Opens::first(Timeline::new(1));
    (2..80).for_each(|open| opens.reopen(Timeline::new(open)));
    let stored = postcard::to_allocvec(&opens).unwrap();
    assert_eq!(postcard::from_bytes::<Opens>(&stored), Ok(opens));
    for count in (0..100).filter(|count| *count != 79) {
        let damaged = [&[count][..], &stored[1..]].concat();
        let read = postcard::from_bytes::<Opens>(&damaged);
        assert!(read.is_err() || count >= 64, "{count}");
    }
    assert!(postcard::from_bytes::<Opens>(&[0, 0]).is_err());
    assert!(postcard::from_bytes::<Opens>(&[1, 0]).is_err());
}
