//! Where each end starts in its log: both can tell, from what both said in Open.

use crate::op::{Cursor, Timeline};
use crate::timeline::History;
use crate::wire::Access;

/// What one end says about its log in Open.
pub(super) struct Side<'a> {
    pub(super) timeline: Timeline,
    pub(super) previous: Option<Timeline>,
    pub(super) begins: u64,
    pub(super) horizon: u64,
    pub(super) tail: u64,
    pub(super) digest: u64,
    pub(super) cursor: Option<Cursor>,
    pub(super) access: Access,
    pub(super) thorough: bool,
    pub(super) history: Option<&'a History>,
}

/// Where an end starts in its log.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Start {
    /// Here.
    At(u64),
    /// The receiver's cursor is on a timeline that only the sender may remember: it says.
    Ask,
    /// The receiver sends its heads, and the sender says.
    Heads,
    /// The cursor is beyond the tail: the log has lost entries that the receiver holds.
    TailLost,
}

impl Side<'_> {
    /// The cheapest way to find the start that both ends can see from both Opens, so that neither need say it.
    pub(super) fn start_for(&self, receiver: &Side<'_>) -> Start {
        if self.access == Access::Read {
            return Start::At(self.tail); // it sends nothing
        }
        if self.thorough || receiver.thorough {
            return Start::Heads;
        }
        let at = |position| if position < self.horizon { Start::Heads } else { Start::At(position) };
        match receiver.cursor {
            Some(cursor) if cursor.timeline == self.timeline && cursor.position > self.tail => Start::TailLost,
            _ if self.digest == receiver.digest => Start::At(self.tail),
            Some(cursor) if cursor.timeline == self.timeline => at(cursor.position),
            Some(cursor) if Some(cursor.timeline) == self.previous => at(cursor.position.min(self.begins)),
            Some(_) => Start::Ask,
            None if receiver.digest == 0 || self.tail == 0 => at(0),
            None => Start::Heads,
        }
    }

    /// The timeline whose entries this end surely still holds, if a cursor on its log is `cursor`: what came by it
    /// need not go back.
    pub(super) fn surely_holds(&self, cursor: Option<Cursor>) -> Option<Timeline> {
        let Cursor { timeline, position } = cursor?;
        let current = timeline == self.timeline && position <= self.tail;
        let previous = Some(timeline) == self.previous && position <= self.begins;
        (current || previous).then_some(timeline)
    }
}
