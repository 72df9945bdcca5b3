//! The app that the simulator brings: it writes ops whose bodies differ, and writes again what a disk has lost.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use antiphon::op::DocumentId;
use antiphon::replica::{Authority, Event, Input, LinkId, Options};
use bytes::Bytes;

use super::{App, AppWorkload, ReplicaNode, Setup, When};
use crate::laws::Law;
use crate::node::Action;
use crate::plan::{Place, Source};
use crate::replica::laws::Bodies;
use crate::text::{bytes_text, parse_bytes};

/// A replica with this app.
pub type WriterNode = ReplicaNode<Writer>;

/// Writes ops whose bodies differ. What the disk has lost it writes again, and nothing else is done unasked.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    options: BTreeMap<DocumentId, Options>,
    /// Those that are connected, the oldest first.
    links: Vec<LinkId>,
    /// Documents that are being taken anew from a peer, who may be gone before that is done.
    resetting: BTreeSet<DocumentId>,
    /// Where the logs end, as far as it was told.
    tails: BTreeMap<DocumentId, u64>,
}

/// What a [`Writer`]'s user does. As text: `append notes 3x20B`, `append notes 20B wait`, `open notes`, `close notes`,
/// `reset notes`, `compact notes`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Write {
    /// Appends ops in one go.
    Append {
        /// To which document.
        document: DocumentId,
        /// How many.
        ops: u16,
        /// Bytes of each body; at least [`BODY_BYTES_MIN`], which are what makes it differ from others.
        bytes: u32,
        /// Whether somebody waits for the acknowledgements.
        wait: bool,
    },
    /// Opens a document.
    Open(DocumentId),
    /// Closes it.
    Close(DocumentId),
    /// Gives up what is here of it where it differs from what the peer holds to whom it is connected the longest.
    Reset(DocumentId),
    /// Lets a snapshot take the place of all that is durable of it. It has 100 bytes an op.
    Compact(DocumentId),
}

/// Bytes of the smallest body.
pub const BODY_BYTES_MIN: u32 = 6;

/// No snapshot is larger.
const SNAPSHOT_BYTES_MAX: u64 = 2_000;

/// The body of the `number`th op of a step: no other step and number have it.
pub(super) fn body(step: u64, number: u16, bytes: u32) -> Bytes {
    let mut body = vec![0; bytes.max(BODY_BYTES_MIN) as usize];
    body[..4].copy_from_slice(&(step as u32).to_le_bytes());
    body[4..6].copy_from_slice(&number.to_le_bytes());
    body.into()
}

impl App for Writer {
    type Action = Write;

    fn start(setup: &Setup) -> Self {
        Self { options: setup.documents.clone(), links: Vec::new(), resetting: BTreeSet::new(), tails: BTreeMap::new() }
    }

    fn act(&mut self, action: Write, at: When) -> Vec<Input> {
        match action {
            Write::Append { document, ops, bytes, wait } => {
                let bodies = (0..ops).map(|number| body(at.step, number, bytes)).collect();
                let waited = self.links.iter().filter(|_| wait);
                let waited = waited.map(|link| Input::ImmediateAck { document: document.clone(), link: *link });
                [Input::Append { document: document.clone(), bodies }].into_iter().chain(waited).collect()
            }
            Write::Open(document) => {
                let options = self.options.get(&document).cloned().unwrap_or_default();
                vec![Input::Open { document, options }]
            }
            Write::Close(document) => vec![Input::Close { document }],
            Write::Reset(document) => {
                let from = self.links.first();
                self.resetting.extend(from.map(|_| document.clone()));
                from.map(|link| Input::Reset { document, link: *link }).into_iter().collect()
            }
            Write::Compact(document) => {
                let position = self.tails.get(&document).copied().unwrap_or_default();
                let body = vec![at.step as u8; (100 * position).min(SNAPSHOT_BYTES_MAX) as usize].into();
                vec![Input::Compact { document, position, body }]
            }
        }
    }

    fn told(&mut self, event: &Event) -> Vec<Input> {
        match event {
            Event::Opened { document, tail, .. } | Event::Applied { document, position: tail, .. } => {
                self.tails.insert(document.clone(), *tail);
            }
            Event::Received { batch } => _ = self.tails.insert(batch.document.clone(), batch.tail()),
            Event::Connected { link, .. } => {
                self.links.push(*link);
                let resetting = self.resetting.iter().cloned();
                return resetting.map(|document| Input::Reset { document, link: *link }).collect();
            }
            Event::Mended { document } => _ = self.resetting.remove(document),
            Event::Disconnected { link, .. } => self.links.retain(|open| open != link),
            Event::Recovered { document, lost, .. } if !lost.is_empty() => {
                return vec![Input::Append { document: document.clone(), bodies: lost.clone() }];
            }
            _ => {}
        }
        Vec::new()
    }

    fn laws() -> Vec<Box<dyn Law<WriterNode>>> {
        vec![Box::new(Bodies::default())]
    }
}

impl Action for Write {
    fn simpler(&self) -> Vec<Self> {
        let Self::Append { document, ops, bytes, wait } = self else { return Vec::new() };
        let (ops, bytes, wait) = (*ops, *bytes, *wait);
        let append = |ops, bytes, wait| Self::Append { document: document.clone(), ops, bytes, wait };
        let fewer = [1, ops / 2, ops - 1].into_iter().filter(|fewer| *fewer < ops && *fewer > 0);
        let shorter = [BODY_BYTES_MIN, (bytes / 2).max(BODY_BYTES_MIN)].into_iter().filter(|shorter| *shorter < bytes);
        let mut simpler: Vec<_> = fewer.map(|ops| append(ops, bytes, wait)).collect();
        simpler.extend(shorter.map(|bytes| append(ops, bytes, wait)));
        simpler.extend(wait.then(|| append(ops, bytes, false)));
        simpler
    }
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Append { document, ops, bytes, wait } => {
                let ops = if *ops == 1 { String::new() } else { format!("{ops}x") };
                let wait = if *wait { " wait" } else { "" };
                write!(f, "append {document} {ops}{}{wait}", bytes_text(u64::from(*bytes)))
            }
            Self::Open(document) => write!(f, "open {document}"),
            Self::Close(document) => write!(f, "close {document}"),
            Self::Reset(document) => write!(f, "reset {document}"),
            Self::Compact(document) => write!(f, "compact {document}"),
        }
    }
}

/// Why a text is not what a [`Writer`]'s user can do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BadWrite;

impl fmt::Display for BadWrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "an action such as `append notes 20B` (at least 6B), `append notes 3x20B wait`, `open notes`, `close notes`, \
             `reset notes` or `compact notes`",
        )
    }
}

impl std::error::Error for BadWrite {}

impl FromStr for Write {
    type Err = BadWrite;

    fn from_str(text: &str) -> Result<Self, BadWrite> {
        let words: Vec<_> = text.split_whitespace().collect();
        let document = words.get(1).and_then(|name| name.parse().ok()).ok_or(BadWrite)?;
        match words[..] {
            ["append", _, what] => append(document, what, false),
            ["append", _, what, "wait"] => append(document, what, true),
            ["open", _] => Ok(Self::Open(document)),
            ["close", _] => Ok(Self::Close(document)),
            ["reset", _] => Ok(Self::Reset(document)),
            ["compact", _] => Ok(Self::Compact(document)),
            _ => Err(BadWrite),
        }
    }
}

fn append(document: DocumentId, what: &str, wait: bool) -> Result<Write, BadWrite> {
    let (ops, bytes) = what.split_once('x').unwrap_or(("1", what));
    let bytes = parse_bytes(bytes).and_then(|bytes| u32::try_from(bytes).ok()).ok_or(BadWrite)?;
    if bytes < BODY_BYTES_MIN {
        return Err(BadWrite);
    }
    Ok(Write::Append { document, ops: ops.parse().map_err(|_| BadWrite)?, bytes, wait })
}

// -------------------------------------------------------------------------------------------- drawing

impl AppWorkload for Writer {
    fn draw_action(source: &mut dyn Source, setup: &Setup, ops: u32) -> (Write, u32) {
        let index = source.below(setup.documents.len() as u64) as usize;
        let document = setup.documents.keys().nth(index).cloned();
        let document = document.unwrap_or_else(|| "doc0".parse().expect("the name is valid"));
        let ops = if source.one_in(4) { 1 + source.below(ops.min(8).into()) } else { 1 };
        let bytes = match source.below(40) {
            0 => 5_000 + source.below(20_000),
            1..=3 => 300 + source.below(2_000),
            _ => 6 + source.below(40),
        };
        let wait = source.one_in(6);
        (Write::Append { document, ops: ops as u16, bytes: bytes as u32, wait }, ops as u32)
    }

    fn bytes(action: &Write) -> u64 {
        match action {
            Write::Append { ops, bytes, .. } => u64::from(*ops) * u64::from(*bytes),
            Write::Open(_) | Write::Close(_) | Write::Reset(_) => 0,
            Write::Compact(_) => SNAPSHOT_BYTES_MAX,
        }
    }

    fn draw_more(source: &mut dyn Source, place: &Place, setup: &Setup, until: Duration) -> Vec<(Duration, Write)> {
        let Some(document) = setup.documents.keys().next() else { return Vec::new() };
        let until = until.as_millis() as u64;
        if place.compacts && setup.documents.values().any(|options| options.authority == Authority::Us) {
            let times = 1 + source.below(3);
            let compact = |_| (Duration::from_millis(source.below(until)), Write::Compact(document.clone()));
            return (0..times).map(compact).collect();
        }
        // From one that only reads, nothing comes back.
        if !place.readers && source.one_in(45) {
            return vec![(Duration::from_millis(source.below(until)), Write::Reset(document.clone()))];
        }
        if !source.one_in(12) {
            return Vec::new();
        }
        let close = source.below(until);
        let open = close + source.below(until - close);
        let [close, open] = [close, open].map(Duration::from_millis);
        vec![(close, Write::Close(document.clone())), (open, Write::Open(document.clone()))]
    }
}
