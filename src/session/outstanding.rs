//! What is under way between two places of a log, and what it costs.

use alloc::collections::VecDeque;

/// The cost of ranges of a log that were begun and are not yet finished, in at most [`MARKS_MAX`] steps.
///
/// Ranges may be merged, so that a cost is released a little late and never early.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Outstanding {
    /// `(position after the range, cost)`, in order.
    marks: VecDeque<(u64, u64)>,
    total: u64,
}

const MARKS_MAX: usize = 32;
/// Room that is kept when nothing is under way.
const IDLE_MARKS: usize = 4;

impl Outstanding {
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    pub(super) fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// A range that ends before position `to` begins.
    pub(super) fn begin(&mut self, to: u64, cost: u64, window: u64) {
        self.total += cost;
        match self.marks.back_mut() {
            Some(last) if last.1 + cost <= window / MARKS_MAX as u64 || to <= last.0 => {
                last.0 = last.0.max(to);
                last.1 += cost;
            }
            _ => self.marks.push_back((to, cost)),
        }
    }

    /// Everything before `position` is finished. Returns what that releases.
    pub(super) fn finish(&mut self, position: u64) -> u64 {
        let before = self.total;
        while let Some(&(to, cost)) = self.marks.front() {
            if to > position {
                break;
            }
            self.total -= cost;
            self.marks.pop_front();
        }
        if self.marks.is_empty() && self.marks.capacity() > IDLE_MARKS {
            self.marks = VecDeque::new(); // idle documents are many
        }
        before - self.total
    }

    /// Forgets everything. Returns what that releases.
    pub(super) fn clear(&mut self) -> u64 {
        self.finish(u64::MAX)
    }
}
