//! Timelines: which histories of positions a replica remembers, and where each of them ended in a document.

use alloc::sync::Arc;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::op::Timeline;

/// How many timelines a replica, and a document, remembers. A cursor on an older one is answered with heads.
pub const TIMELINES_MAX: usize = 64;

/// The times that a replica was opened. Each open, clean or not, draws a timeline; they are counted from 1.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(try_from = "StoredOpens")]
pub struct Opens {
    count: u64,
    timelines: Vec<Timeline>,
}

/// [`Opens`] as they were stored, perhaps damaged since.
#[derive(Deserialize)]
struct StoredOpens {
    count: u64,
    timelines: Vec<Timeline>,
}

impl TryFrom<StoredOpens> for Opens {
    type Error = &'static str;

    fn try_from(stored: StoredOpens) -> Result<Self, Self::Error> {
        let StoredOpens { count, timelines } = stored;
        let kept = timelines.len() as u64;
        let plausible = kept == count.min(TIMELINES_MAX as u64) && kept > 0;
        if plausible { Ok(Self { count, timelines }) } else { Err("the number of timelines is not that of the opens") }
    }
}

impl Opens {
    /// The first open of a replica.
    pub fn first(timeline: Timeline) -> Self {
        Self { count: 1, timelines: [timeline].into() }
    }

    /// One more open, with a timeline that was never used before.
    pub fn reopen(&mut self, timeline: Timeline) {
        self.count += 1;
        self.timelines.push(timeline);
        let excess = self.timelines.len().saturating_sub(TIMELINES_MAX);
        self.timelines.drain(..excess);
    }

    /// The timeline of this open.
    pub fn current(&self) -> Timeline {
        self.timelines[self.timelines.len() - 1] // made with one, only ever trimmed to TIMELINES_MAX
    }

    /// The timeline of the open before, if it is remembered.
    pub fn previous(&self) -> Option<Timeline> {
        self.timelines.len().checked_sub(2).map(|index| self.timelines[index])
    }

    /// The number of this open.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The number of the open that drew `timeline`.
    fn number(&self, timeline: Timeline) -> Option<u64> {
        let index = self.timelines.iter().rposition(|known| *known == timeline)?;
        Some(self.count + 1 + index as u64 - self.timelines.len() as u64)
    }
}

/// That a timeline's first append in a document went to position `begins`. Stored with that append.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct TimelineRecord {
    /// The number of the replica's open in which it happened.
    pub open: u64,
    /// The timeline.
    pub timeline: Timeline,
    /// The document's tail when the timeline began there.
    pub begins: u64,
}

/// One document's timelines.
///
/// Only timelines in which the document grew are recorded; of the others the replica's [`Opens`] tell when they were,
/// and so that they ended where the next recorded one begins.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(try_from = "StoredHistory")]
pub struct History {
    opens: Arc<Opens>,
    records: Vec<TimelineRecord>,
    /// Opens up to this one are forgotten: a reset or a snapshot gave the document a fresh timeline.
    forgotten: u64,
    /// The tail at which the document was loaded in this open.
    loaded_at: u64,
    /// The current timeline was begun here, and no append was stored in it yet.
    begun: bool,
}

/// A [`History`] as it was stored, perhaps damaged since.
#[derive(Deserialize)]
struct StoredHistory {
    opens: Arc<Opens>,
    records: Vec<TimelineRecord>,
    forgotten: u64,
    loaded_at: u64,
    begun: bool,
}

impl TryFrom<StoredHistory> for History {
    type Error = &'static str;

    fn try_from(stored: StoredHistory) -> Result<Self, Self::Error> {
        let StoredHistory { opens, records, forgotten, loaded_at, begun } = stored;
        let history = Self { opens, records, forgotten, loaded_at, begun };
        if history.records.len() > TIMELINES_MAX {
            return Err("there are more records than are kept");
        }
        if begun && !history.is_listed() {
            return Err("the timeline that was begun has no record");
        }
        Ok(history)
    }
}

impl History {
    /// The history of a document that is loaded with its `records`, at the tail `loaded_at`.
    pub fn load(opens: Arc<Opens>, mut records: Vec<TimelineRecord>, forgotten: u64, loaded_at: u64) -> Self {
        let excess = records.len().saturating_sub(TIMELINES_MAX);
        records.drain(..excess);
        Self { opens, records, forgotten, loaded_at, begun: false }
    }

    /// The timeline in which positions are given out now, and where it begins.
    pub fn current(&self) -> TimelineRecord {
        match self.records.last() {
            Some(last) if last.open == self.opens.count() => *last,
            _ => TimelineRecord { open: self.opens.count(), timeline: self.opens.current(), begins: self.loaded_at },
        }
    }

    /// The timeline that ended where the current one begins, if it is remembered.
    pub fn previous(&self) -> Option<Timeline> {
        let recorded_now = self.records.len() - usize::from(self.is_listed());
        let earlier = self.records[..recorded_now].last();
        let drawn = if self.current().timeline == self.opens.current() {
            self.opens.previous()
        } else {
            Some(self.opens.current())
        };
        let drawn = drawn.and_then(|timeline| Some((timeline, self.number(timeline)?)));
        match (earlier, drawn) {
            (Some(earlier), Some((drawn, open))) if earlier.open < open => Some(drawn),
            (Some(earlier), _) => Some(earlier.timeline),
            (None, drawn) => drawn.map(|(timeline, _)| timeline),
        }
    }

    /// Whether the current timeline is the last of the records.
    fn is_listed(&self) -> bool {
        self.records.last().is_some_and(|last| last.open == self.opens.count())
    }

    /// Whether no append that is stored says when [`current`](Self::current) began.
    pub fn unrecorded(&self) -> bool {
        self.begun || !self.is_listed()
    }

    /// The current timeline was stored with an append.
    pub fn recorded(&mut self) {
        self.begun = false;
        if !self.is_listed() {
            let current = self.current();
            self.push(current);
        }
    }

    /// Gives the document a timeline of its own from `begins` on: positions given out before may be wrong.
    pub fn begin(&mut self, timeline: Timeline, begins: u64) {
        self.push(TimelineRecord { open: self.opens.count(), timeline, begins });
        self.begun = true;
    }

    /// Whether a timeline was [begun](Self::begin) of which no append was stored: whoever loads the document again does not
    /// find it.
    pub fn is_begun(&self) -> bool {
        self.begun
    }

    fn push(&mut self, record: TimelineRecord) {
        self.records.push(record);
        if self.records.len() > TIMELINES_MAX {
            self.records.remove(0);
        }
    }

    /// Where `timeline` ended in a log that now ends at `tail` (the current one: there). `None` if it is not
    /// remembered, so that only heads can tell what its holders have.
    pub fn end(&self, timeline: Timeline, tail: u64) -> Option<u64> {
        let current = self.current();
        if timeline == current.timeline {
            return Some(tail);
        }
        if let Some(index) = self.records.iter().rposition(|record| record.timeline == timeline) {
            return Some(self.records.get(index + 1).map_or(current.begins, |next| next.begins));
        }
        let open = self.number(timeline)?;
        let next = self.records.iter().position(|record| record.open >= open);
        if next == Some(0) && self.records.len() == TIMELINES_MAX {
            return None; // the record that ended it may be one of those that were dropped
        }
        Some(next.map_or(current.begins, |index| self.records[index].begins))
    }

    /// The number of the open that drew `timeline`, unless a reset has put it out of mind.
    fn number(&self, timeline: Timeline) -> Option<u64> {
        self.opens.number(timeline).filter(|open| *open > self.forgotten)
    }
}
