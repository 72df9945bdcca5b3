//! What runs of replicas reach: messages and what becomes of them, states of sessions, ways to end, events, faults.

use antiphon::codes::Code;
use antiphon::replica::{Event, LinkId};
use antiphon::session::{Stage, Transport};
use antiphon::storage::{Request, Transaction};
use antiphon::wire::{Message, TRAILER_BYTES};
use bytes::Bytes;

use super::{App, ReplicaNode, Told};
use crate::coverage::Coverage;
use crate::link::{Fate, Loss};
use crate::world::{Down, Happening, NodeId, World};

macro_rules! messages {
    ($($kind:literal $name:literal)*) => {
        /// The kinds of messages that are sent, in the order of their names below.
        const KINDS: &[u8] = &[$($kind),*];
        const MESSAGES: usize = KINDS.len();
        const FRAME_NAMES: [[&str; FATES]; MESSAGES] = [$([
            concat!($name, " sent"),
            concat!($name, " dropped"),
            concat!($name, " duplicated"),
            concat!($name, " reordered"),
            concat!($name, " corrupted"),
        ]),*];
    };
}

/// What becomes of frames.
const FATES: usize = 5;

messages! {
    0x01 "Hello"
    0x02 "Welcome"
    0x03 "Refuse"
    0x04 "Open"
    0x05 "Denied"
    0x06 "Close"
    0x07 "Heads"
    0x08 "Snapshot"
    0x09 "Author"
    0x0a "Ack"
    0x0b "Rewind"
    0x0c "Ping"
    0x0d "Pong"
    0x0e "Credit"
    0x0f "Goodbye"
    0x10 "Live"
    0x11 "Bulk"
    0x12 "Part"
    0x14 "Resume"
    0x15 "Fork"
    0x16 "Confirm"
    0x17 "ImmediateAck"
    0x18 "SnapshotWanted"
}

macro_rules! marks {
    ($($mark:ident $name:literal)*) => {
        /// What else is counted.
        #[derive(Clone, Copy)]
        enum Mark { $($mark),* }

        const MARK_NAMES: &[&str] = &[$($name),*];
    };
}

marks! {
    GreetingAsking "session: from greeting to asking"
    GreetingWelcoming "session: from greeting to welcoming"
    GreetingLive "session: from greeting to live"
    AskingWelcoming "session: from asking to welcoming"
    AskingLive "session: from asking to live"
    WelcomingLive "session: from welcoming to live"
    WelcomingAsking "session: from welcoming back to asking"
    GreetingClosed "session: closed when greeting"
    AskingClosed "session: closed when asking"
    WelcomingClosed "session: closed when welcoming"
    LiveClosed "session: closed when live"
    EndedShutdown "session ended: SHUTDOWN"
    EndedSameReplica "session ended: SAME_REPLICA"
    EndedClone "session ended: CLONE"
    EndedSilent "session ended: SILENT"
    EndedHandshakeTimeout "session ended: HANDSHAKE_TIMEOUT"
    EndedReplaced "session ended: REPLACED"
    EndedRestarted "session ended: RESTARTED"
    EndedLost "session ended: the link went away"
    ClosedDone "document closed: DONE"
    ClosedUnknown "document denied: UNKNOWN_DOCUMENT"
    ClosedStorageFailed "document closed: STORAGE_FAILED"
    ClosedMismatch "document closed: MISMATCH"
    ClosedTailLost "document closed: TAIL_LOST"
    ClosedReset "document closed: RESET"
    ClosedSetBack "document closed: SET_BACK"
    ClosedCompacted "document closed: COMPACTED"
    OpenedDocument "told: Opened"
    Applied "told: Applied"
    Received "told: Received"
    Acknowledged "told: Acknowledged"
    InStep "told: InStep"
    Forked "told: Forked"
    Renewed "told: Renewed"
    Orphaned "told: Orphaned"
    Mended "told: Mended"
    Failed "told: Failed"
    Recovered "told: Recovered, nothing lost"
    RecoveredLost "told: Recovered, with bodies that are lost"
    Compacted "told: Compacted"
    ClosedToApp "told: Closed"
    Declined "an app was declined"
    Stopped "a replica stopped in order"
    Killed "a replica was killed"
    KilledWriting "a replica went down with a write under way"
    KilledLosing "a replica that promises memory only was killed and lost writes"
    PowerLost "a replica lost its power and nothing else"
    PowerLostWrites "a replica lost its power and writes"
    Replaced "a disk was replaced"
    TailLost "a disk lost its last writes under a replica"
    DiskFailed "a disk failed"
    DiskLied "a disk wrote and said that it failed"
    WroteReset "a reset was written"
    WroteSnapshot "a snapshot was made"
    ReadSnapshot "a snapshot was read for a session"
    StagedSnapshot "a piece of a snapshot was written"
    InstalledSnapshot "a snapshot was installed"
    WroteSalvage "what a reset put aside was written"
    WroteCursorAlone "a cursor was written without entries"
    ReadEntries "entries were read for a session"
    Compared "a log was compared with heads"
    CheckedChains "chains of own ops were compared"
    LostInBurst "a frame was lost in a burst"
    LostInQueue "a frame found the queue full"
    LostTooLarge "a frame was too large"
    LostInCut "a frame was lost in a cut"
    DoubledLink "a replica had two links on one path"
}

const PLACES: usize = MESSAGES * FATES + MARK_NAMES.len();

const NAMES: [&str; PLACES] = {
    let mut names = [""; PLACES];
    let mut place = 0;
    while place < PLACES {
        names[place] = if place < MESSAGES * FATES {
            FRAME_NAMES[place / FATES][place % FATES]
        } else {
            MARK_NAMES[place - MESSAGES * FATES]
        };
        place += 1;
    }
    names
};

/// Counts what a run of replicas reaches.
#[derive(Debug)]
pub(super) struct Reached {
    coverage: Coverage,
    /// Where each link's session was last, by the link's number.
    stages: Vec<Option<Stage>>,
    /// The link on which something came; `None`: all may have moved.
    arrived: Option<LinkId>,
}

impl Default for Reached {
    fn default() -> Self {
        Self { coverage: Coverage::of(&NAMES), stages: Vec::new(), arrived: None }
    }
}

impl Reached {
    pub(super) fn coverage(&self) -> &Coverage {
        &self.coverage
    }

    fn mark(&mut self, mark: Mark) {
        self.coverage.reach(MESSAGES * FATES + mark as usize);
    }

    pub(super) fn note<A: App>(&mut self, world: &World<ReplicaNode<A>>, happening: &Happening<ReplicaNode<A>>) {
        match happening {
            Happening::Sent { path, frame, fate, .. } => {
                self.frame(frame, fate, world.medium(*path).transport);
            }
            Happening::Arrived { link, .. } => self.arrived = Some(*link),
            Happening::Settled { node, .. } => self.settled(world, *node),
            Happening::Connected { node, path, .. } if world.links_on(*path, *node) > 1 => self.mark(Mark::DoubledLink),
            Happening::Disconnected { link, .. } => self.moved(*link, Stage::Closed),
            Happening::Told { event: Told::Event(event), .. } => self.told(event),
            Happening::Told { event: Told::Declined(_), .. } => self.mark(Mark::Declined),
            Happening::Done { request: (_, request), told, .. } => self.done(request, *told),
            Happening::Failed { .. } => self.mark(Mark::DiskFailed),
            Happening::Replaced { .. } => self.mark(Mark::Replaced),
            Happening::TailLost { lost: 1.., .. } => self.mark(Mark::TailLost),
            Happening::Down { how, lost, unfinished, .. } => {
                if *unfinished {
                    self.mark(Mark::KilledWriting);
                }
                self.mark(match (how, lost) {
                    (Down::Stopped, _) => Mark::Stopped,
                    (Down::Killed, 0) => Mark::Killed,
                    (Down::Killed, _) => Mark::KilledLosing,
                    (Down::PowerLost, 0) => Mark::PowerLost,
                    (Down::PowerLost, _) => Mark::PowerLostWrites,
                });
            }
            _ => {}
        }
    }

    fn frame(&mut self, frame: &Bytes, fate: &Fate, transport: Transport) {
        let bare = if transport == Transport::Reliable { &frame[..] } else { &frame[..frame.len() - TRAILER_BYTES] };
        let inner = without_number(bare);
        let Some(kind) = kind_of(inner) else { return };
        let copy = &fate.copies[0];
        let fates = [true, fate.lost.is_some(), fate.duplicated, copy.held_back, copy.flipped_bit.is_some()]
            .into_iter()
            .enumerate();
        for (place, _) in fates.filter(|(_, befell)| *befell) {
            self.coverage.reach(kind * FATES + place);
        }
        match fate.lost {
            Some(Loss::Burst) => self.mark(Mark::LostInBurst),
            Some(Loss::Overflow) => self.mark(Mark::LostInQueue),
            Some(Loss::TooLarge) => self.mark(Mark::LostTooLarge),
            Some(Loss::Cut) => self.mark(Mark::LostInCut),
            Some(Loss::Chance) | None => {}
        }
        const DENIED: u8 = 0x05;
        const CLOSE: u8 = 0x06;
        if matches!(inner.first(), Some(&(DENIED | CLOSE)))
            && let Ok(Message::Denied(end) | Message::Close(end)) = Message::decode(&frame.slice_ref(inner))
        {
            match end.code {
                Code::DONE => self.mark(Mark::ClosedDone),
                Code::UNKNOWN_DOCUMENT => self.mark(Mark::ClosedUnknown),
                Code::STORAGE_FAILED => self.mark(Mark::ClosedStorageFailed),
                Code::MISMATCH => self.mark(Mark::ClosedMismatch),
                Code::TAIL_LOST => self.mark(Mark::ClosedTailLost),
                Code::RESET => self.mark(Mark::ClosedReset),
                Code::SET_BACK => self.mark(Mark::ClosedSetBack),
                Code::COMPACTED => self.mark(Mark::ClosedCompacted),
                _ => {}
            }
        }
    }

    fn settled<A: App>(&mut self, world: &World<ReplicaNode<A>>, node: NodeId) {
        let arrived = self.arrived.take();
        let Some(process) = world.process(node) else { return };
        let moved = |link: LinkId| Some((link, process.replica().session(link)?.stage()));
        match arrived {
            Some(link) => moved(link).into_iter().for_each(|(link, stage)| self.moved(link, stage)),
            None => {
                process.links().iter().filter_map(|link| moved(*link)).for_each(|(link, stage)| self.moved(link, stage))
            }
        }
    }

    /// A session is now at this stage.
    fn moved(&mut self, link: LinkId, to: Stage) {
        let index = link.0 as usize;
        if self.stages.len() <= index {
            self.stages.resize(index + 1, None);
        }
        let from = self.stages[index].replace(to);
        let mark = match (from.unwrap_or(Stage::Greeting), to) {
            (Stage::Greeting, Stage::Asking) => Mark::GreetingAsking,
            (Stage::Greeting, Stage::Welcoming) => Mark::GreetingWelcoming,
            (Stage::Greeting, Stage::Live) => Mark::GreetingLive,
            (Stage::Asking, Stage::Welcoming) => Mark::AskingWelcoming,
            (Stage::Asking, Stage::Live) => Mark::AskingLive,
            (Stage::Welcoming, Stage::Live) => Mark::WelcomingLive,
            (Stage::Welcoming, Stage::Asking) => Mark::WelcomingAsking,
            (Stage::Greeting, Stage::Closed) => Mark::GreetingClosed,
            (Stage::Asking, Stage::Closed) => Mark::AskingClosed,
            (Stage::Welcoming, Stage::Closed) => Mark::WelcomingClosed,
            (Stage::Live, Stage::Closed) => Mark::LiveClosed,
            _ => return,
        };
        self.mark(mark);
    }

    fn told(&mut self, event: &Event) {
        let mark = match event {
            Event::Connected { .. } => return,
            Event::Disconnected { ending: None, .. } => Mark::EndedLost,
            Event::Disconnected { ending: Some(ending), .. } => match ending.code {
                Code::SHUTDOWN => Mark::EndedShutdown,
                Code::SAME_REPLICA => Mark::EndedSameReplica,
                Code::CLONE => Mark::EndedClone,
                Code::SILENT => Mark::EndedSilent,
                Code::HANDSHAKE_TIMEOUT => Mark::EndedHandshakeTimeout,
                Code::REPLACED => Mark::EndedReplaced,
                Code::RESTARTED => Mark::EndedRestarted,
                _ => return,
            },
            Event::Opened { .. } => Mark::OpenedDocument,
            Event::Applied { .. } => Mark::Applied,
            Event::Received { .. } => Mark::Received,
            Event::Acknowledged { .. } => Mark::Acknowledged,
            Event::InStep { .. } => Mark::InStep,
            Event::Forked { .. } => Mark::Forked,
            Event::Renewed { .. } => Mark::Renewed,
            Event::Orphaned { .. } => Mark::Orphaned,
            Event::Mended { .. } => Mark::Mended,
            Event::Failed { .. } => Mark::Failed,
            Event::Recovered { lost, .. } if lost.is_empty() => Mark::Recovered,
            Event::Recovered { .. } => Mark::RecoveredLost,
            Event::Compacted { .. } => Mark::Compacted,
            Event::Closed { .. } => Mark::ClosedToApp,
        };
        self.mark(mark);
    }

    fn done(&mut self, request: &Request, told: bool) {
        if !told {
            self.mark(Mark::DiskLied);
        }
        match request {
            Request::Write(Transaction::Reset { .. }) => self.mark(Mark::WroteReset),
            Request::Write(Transaction::Compact { .. }) => self.mark(Mark::WroteSnapshot),
            Request::Write(Transaction::Stage { .. }) => self.mark(Mark::StagedSnapshot),
            Request::Write(Transaction::Install { .. }) => self.mark(Mark::InstalledSnapshot),
            Request::Snapshot { .. } => self.mark(Mark::ReadSnapshot),
            Request::Write(Transaction::Append(batch)) => {
                if batch.salvaged.is_some() {
                    self.mark(Mark::WroteSalvage);
                }
                if batch.entries.is_empty() && !batch.cursors.is_empty() {
                    self.mark(Mark::WroteCursorAlone);
                }
            }
            Request::Read { .. } => self.mark(Mark::ReadEntries),
            Request::Compare { .. } => self.mark(Mark::Compared),
            Request::Chains { .. } => self.mark(Mark::CheckedChains),
            Request::Write(Transaction::Identity(_))
            | Request::Open(_)
            | Request::Cursor { .. }
            | Request::ReadAside { .. } => {}
        }
    }
}

/// The message in a Reliable, or the message.
pub(super) fn without_number(frame: &[u8]) -> &[u8] {
    const RELIABLE: u8 = 0x13;
    const MORE: u8 = 0x80;
    if frame.first() != Some(&RELIABLE) {
        return frame;
    }
    let digits = frame[1..].iter().take_while(|byte| **byte & MORE != 0).count() + 1;
    frame.get(1 + digits..).unwrap_or_default()
}

/// The place of a message's kind among those that are counted.
fn kind_of(message: &[u8]) -> Option<usize> {
    const CHANGES: std::ops::RangeInclusive<u8> = 0x10..=0x12;
    const FLAGS: u8 = 0xa0;
    let kind = *message.first()?;
    let kind = if CHANGES.contains(&(kind & !FLAGS)) { kind & !FLAGS } else { kind };
    KINDS.iter().position(|known| *known == kind)
}
