//! A run as a picture: the plan is run again before the eyes of a painter, so that runs that nobody looks at pay nothing.

use std::collections::BTreeMap;

use antiphon::Instant;
use antiphon::session::Transport;
use antiphon_report::{Broken, Copy, Fate, Frame, Lane, Mark, Picture, Place, Span, Trouble};
use antiphon_words::{EventWords, Field, FrameWords, Named, Sign, frame_words};
use bytes::Bytes;

use crate::laws::Laws;
use crate::link::{self, Faults, Loss};
use crate::node::Node;
use crate::plan::{PlanOf, clock_text, disk_text};
use crate::run::{Observer, Report, run_observed};
use crate::world::{DiskState, Down, Happening, NodeId, PathId, World};

/// Runs a plan, as [`run`](crate::run::run) does, and draws what happens. A law that breaks is part of the picture.
///
/// The picture is as large as the run is long: some hundred bytes for each frame and mark.
pub fn draw<N: Node>(plan: &PlanOf<N>) -> (Report, Picture) {
    draw_with(plan, Laws::<N>::of_nodes())
}

/// The same with these laws.
pub fn draw_with<N: Node>(plan: &PlanOf<N>, laws: Laws<N>) -> (Report, Picture) {
    let mut painter = Painter::of::<N>(plan);
    let report = run_observed(plan, laws, &mut painter);
    let mut picture = painter.finish(Instant::ZERO + report.took);
    picture.title = "a run".to_owned();
    if report.took >= plan.heal {
        picture.moments.push((Instant::ZERO + plan.heal, "everything heals".to_owned()));
    }
    match &report.outcome {
        Ok(()) => {
            picture.verdict = "no law was broken".to_owned();
            picture.moments.push((Instant::ZERO + plan.heal + report.healing, "all are in step".to_owned()));
        }
        Err(broken) => {
            let (law, what) = (broken.law.to_owned(), broken.what.clone());
            picture.broken = Some(Broken { law, what, at: picture.end });
        }
    }
    let facts = [
        ("virtual time", format!("{:.3} s", report.took.as_secs_f64())),
        ("events", report.events.to_string()),
        ("ops", report.ops.to_string()),
        ("frames", report.frames.sent.to_string()),
        ("lost", report.frames.lost.to_string()),
        ("doubled", report.frames.duplicated.to_string()),
        ("held back", report.frames.reordered.to_string()),
        ("damaged", report.frames.corrupted.to_string()),
        ("crashes", report.crashes.to_string()),
    ];
    picture.facts = facts.map(|(name, what)| (name.to_owned(), what)).into();
    picture.texts.push(("the plan".to_owned(), plan.to_string()));
    (report, picture)
}

/// Draws what it sees.
#[derive(Debug, Default)]
struct Painter {
    picture: Picture,
    /// The places of frames that may still arrive, by their paths and numbers there.
    underway: BTreeMap<(PathId, u64), usize>,
    /// The places of documents, by the numbers that a node's process has given them.
    own: BTreeMap<NodeId, BTreeMap<u32, usize>>,
    /// The same by the numbers of the other end of a path, as far as they have come to a node's process.
    heard: BTreeMap<(PathId, NodeId), BTreeMap<u32, usize>>,
    /// Spans that have not ended, by where they are and what they are of.
    open: BTreeMap<(Where, Trouble), usize>,
    /// What a user has just done, until the node has told what it took it for.
    acted: Option<String>,
}

/// What a span is, and what else is to be known of it.
type Words = (String, Vec<Field>);

fn word(kind: &str) -> Words {
    (kind.to_owned(), Vec::new())
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Where {
    Node(NodeId),
    Path(PathId),
}

impl<N: Node> Observer<N> for Painter {
    fn saw(&mut self, world: &World<N>, happening: &Happening<N>) {
        let now = world.now();
        match happening {
            Happening::Sent { node, path, index, frame, fate } => {
                self.sent(world, (*node, *path, *index), frame, fate);
            }
            Happening::Arrived { node, path, index, .. } => self.arrived(now, (*node, *path, *index), true),
            Happening::Unheard { node, path, index } => self.arrived(now, (*node, *path, *index), false),
            Happening::Acted { action, .. } => self.acted = Some(action.to_string()),
            Happening::Told { node, event } => {
                if let Some(words) = N::words(event) {
                    self.told(world, *node, words);
                }
            }
            Happening::Settled { node, timer } => {
                if let Some(acted) = self.acted.take() {
                    self.mark(now, *node, Sign::User, "Acts", vec![("user", acted)]);
                }
                if *timer {
                    self.mark(now, *node, Sign::Timer, "Timer", Vec::new());
                }
            }
            Happening::Connected { node, path, .. } => self.link(world, *node, *path, "Link up"),
            Happening::Disconnected { node, link } => match world.peer_of(*link) {
                Some((path, _)) => self.link(world, *node, path, "Link gone"),
                None => self.mark(now, *node, Sign::Link, "Link gone", Vec::new()),
            },
            Happening::Cut { .. } | Happening::Parted { .. } | Happening::Mended { .. } | Happening::Faults { .. } => {
                self.path(world, happening);
            }
            _ => self.process(now, happening),
        }
    }
}

impl Painter {
    fn of<N: Node>(plan: &PlanOf<N>) -> Self {
        let mut painter = Self::default();
        for (place, node) in plan.nodes.iter().enumerate() {
            let name = format!("node {}", node.name);
            painter.picture.lanes.push(Lane { name, note: node.setup.to_string() });
            painter.begin(
                Instant::ZERO,
                Where::Node(NodeId::of(place, node.name)),
                Place::Lane(place),
                Trouble::Down,
                word("down"),
            );
        }
        painter
    }

    fn finish(mut self, end: Instant) -> Picture {
        self.picture.end = end;
        for place in self.underway.into_values() {
            for copy in &mut self.picture.frames[place].copies {
                if copy.fate == Fate::Underway && copy.at <= end {
                    copy.fate =
                        Fate::Lost("it was on its way when the path was cut or its connection ended".to_owned());
                }
            }
        }
        self.picture.spans.retain(|span| span.to != Some(span.from));
        self.picture
    }

    // ---------------------------------------------------------------------------------------- frames

    fn sent<N: Node>(
        &mut self,
        world: &World<N>,
        (node, path, index): (NodeId, PathId, u64),
        frame: &Bytes,
        fate: &link::Fate,
    ) {
        let (now, medium) = (world.now(), world.medium(path));
        let words = frame_words(frame, medium.transport != Transport::Reliable);
        let document = self.document(node, path, &words);
        let ends = world.ends(path);
        let to = if ends[0] == node { ends[1] } else { ends[0] };
        let mut copies: Vec<_> = fate
            .sent()
            .iter()
            .map(|copy| Copy {
                at: copy.due,
                fate: Fate::Underway,
                held_back: copy.held_back,
                damaged: copy.flipped_bit.is_some(),
            })
            .collect();
        if let Some(loss) = fate.lost {
            let reason = match loss {
                Loss::Cut => "the path is cut",
                Loss::Chance => "by chance",
                Loss::Burst => "in a burst",
                Loss::Overflow => "the queue was full",
                Loss::TooLarge => "too large for the path",
            };
            let at = now + medium.faults.latency;
            copies = vec![Copy { at, fate: Fate::Lost(reason.to_owned()), held_back: false, damaged: false }];
        } else {
            self.underway.insert((path, index), self.picture.frames.len());
        }
        self.picture.frames.push(Frame { from: node.index(), to: to.index(), sent: now, words, document, copies });
    }

    /// The document that a frame of this node's is about; what an Open says is remembered.
    fn document(&mut self, node: NodeId, path: PathId, words: &FrameWords) -> Option<usize> {
        let known = |numbers: Option<&BTreeMap<u32, usize>>, number: &u32| numbers?.get(number).copied();
        match words.document.as_ref()? {
            Named::Document(document) => {
                let place = self.picture.document(&document.to_string());
                if let Some(number) = words.number {
                    self.own.entry(node).or_default().insert(number, place);
                }
                Some(place)
            }
            Named::OfSender(number) => known(self.own.get(&node), number),
            Named::OfReceiver(number) => known(self.heard.get(&(path, node)), number),
        }
    }

    fn arrived(&mut self, now: Instant, (node, path, index): (NodeId, PathId, u64), heard: bool) {
        let Some(place) = self.underway.get(&(path, index)) else { return };
        let frame = &mut self.picture.frames[*place];
        let underway = frame.copies.iter_mut().filter(|copy| copy.fate == Fate::Underway);
        let Some(copy) = underway.min_by_key(|copy| (copy.at != now, copy.at)) else { return };
        copy.at = now;
        copy.fate = match heard {
            true => Fate::Arrived,
            false => Fate::Lost("nobody was connected there".to_owned()),
        };
        if let (true, Some(number), Some(document)) = (heard && !copy.damaged, frame.words.number, frame.document) {
            self.heard.entry((path, node)).or_default().insert(number, document);
        }
        if !frame.copies.iter().any(|copy| copy.fate == Fate::Underway) {
            self.underway.remove(&(path, index));
        }
    }

    // ---------------------------------------------------------------------------------------- marks

    fn mark(&mut self, at: Instant, node: NodeId, sign: Sign, kind: &str, fields: Vec<Field>) {
        let kind = kind.to_owned();
        self.picture.marks.push(Mark { at, lane: node.index(), sign, kind, document: None, fields });
    }

    fn told<N: Node>(&mut self, world: &World<N>, node: NodeId, words: EventWords) {
        let EventWords { kind, sign, link, document, mut fields } = words;
        if let Some((_, peer)) = link.and_then(|link| world.peer_of(link)) {
            fields.insert(0, ("with", self.name(peer)));
        }
        if sign == Sign::User {
            fields.extend(self.acted.take().map(|acted| ("user", acted)));
        }
        self.mark(world.now(), node, sign, kind, fields);
        let document = document.map(|document| self.picture.document(&document.to_string()));
        if let Some(mark) = self.picture.marks.last_mut() {
            mark.document = document;
        }
    }

    fn name(&self, node: NodeId) -> String {
        self.picture.lanes.get(node.index()).map_or_else(String::new, |lane| lane.name.clone())
    }

    fn link<N: Node>(&mut self, world: &World<N>, node: NodeId, path: PathId, kind: &str) {
        let ends = world.ends(path);
        let peer = if ends[0] == node { ends[1] } else { ends[0] };
        self.mark(world.now(), node, Sign::Link, kind, vec![("with", self.name(peer))]);
        if kind == "Link up" {
            self.heard.remove(&(path, node));
        }
    }

    /// What happens to processes, disks and clocks.
    fn process<N: Node>(&mut self, now: Instant, happening: &Happening<N>) {
        match happening {
            Happening::Started { node } => {
                self.mark(now, *node, Sign::Start, "Started", Vec::new());
                self.own.remove(node);
                self.end(now, Where::Node(*node), Trouble::Down);
            }
            Happening::Down { node, how, lost, unfinished } => {
                let kind = match how {
                    Down::Stopped => "Stopped",
                    Down::Killed => "Killed",
                    Down::PowerLost => "Power lost",
                };
                let mut fields = vec![("writes lost", lost.to_string())];
                fields.extend(unfinished.then(|| ("disk", "it had been asked for something".to_owned())));
                self.mark(now, *node, Sign::End, kind, fields);
                self.end(now, Where::Node(*node), Trouble::Paused);
                self.begin(now, Where::Node(*node), Place::Lane(node.index()), Trouble::Down, word("down"));
            }
            Happening::Paused { node } => {
                self.begin(now, Where::Node(*node), Place::Lane(node.index()), Trouble::Paused, word("paused"));
            }
            Happening::Resumed { node } => self.end(now, Where::Node(*node), Trouble::Paused),
            Happening::DiskSet { node, state } => {
                self.end(now, Where::Node(*node), Trouble::Disk);
                if *state != DiskState::Works {
                    let kind = word(&format!("disk {}", disk_text(*state)));
                    self.begin(now, Where::Node(*node), Place::Lane(node.index()), Trouble::Disk, kind);
                }
            }
            Happening::ClockSet { node, clock } => {
                self.mark(now, *node, Sign::Clock, "Clock set", vec![("ahead", clock_text(*clock))]);
            }
            Happening::BackedUp { node } => self.mark(now, *node, Sign::Disk, "Backed up", Vec::new()),
            Happening::Replaced { node } => self.mark(now, *node, Sign::Disk, "Disk replaced", Vec::new()),
            Happening::TailLost { node, lost } => {
                self.mark(now, *node, Sign::Disk, "Tail lost", vec![("writes lost", lost.to_string())]);
            }
            Happening::Done { node, told: false, .. } => {
                let what = "it did as it was asked, and says that it failed".to_owned();
                self.mark(now, *node, Sign::Disk, "Disk lied", vec![("what", what)]);
            }
            Happening::Failed { node } => self.mark(now, *node, Sign::Disk, "Disk failed", Vec::new()),
            Happening::Refused { node, reason } => {
                self.mark(now, *node, Sign::Disk, "Disk refused", vec![("reason", reason.clone())]);
            }
            _ => {}
        }
    }

    // ---------------------------------------------------------------------------------------- spans

    fn begin(&mut self, from: Instant, of: Where, place: Place, trouble: Trouble, (kind, fields): Words) {
        self.open.insert((of, trouble), self.picture.spans.len());
        self.picture.spans.push(Span { from, to: None, place, trouble, kind, fields });
    }

    fn end(&mut self, at: Instant, of: Where, trouble: Trouble) {
        if let Some(place) = self.open.remove(&(of, trouble)) {
            self.picture.spans[place].to = Some(at);
        }
    }

    /// What happens to paths.
    fn path<N: Node>(&mut self, world: &World<N>, happening: &Happening<N>) {
        let (path, trouble, begins) = match happening {
            Happening::Parted { path } => (path, Trouble::Cut, Some(word("path down"))),
            Happening::Cut { path, sides } => {
                let [first, second] = world.ends(*path).map(|node| self.name(node));
                let kind = match sides {
                    [true, false] => format!("cut {first} → {second}"),
                    [false, true] => format!("cut {second} → {first}"),
                    _ => "cut".to_owned(),
                };
                (path, Trouble::Cut, Some(word(&kind)))
            }
            Happening::Faults { path, faults } if *faults != faults.healed() => {
                let text = Faults { ordered: false, ..*faults }.to_string();
                (path, Trouble::Faults, Some(("other faults".to_owned(), vec![("faults", text)])))
            }
            Happening::Faults { path, .. } => (path, Trouble::Faults, None),
            Happening::Mended { path } => (path, Trouble::Cut, None),
            _ => return,
        };
        let (now, [first, second]) = (world.now(), world.ends(*path));
        self.end(now, Where::Path(*path), trouble);
        if let Some(words) = begins {
            let place = Place::Between(first.index(), second.index());
            self.begin(now, Where::Path(*path), place, trouble, words);
        }
    }
}
