//! `antiphon demo`: three replicas, lossy links, a cut and two crashes; and what the disks hold in the end.

use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use antiphon::heads::{Head, Heads, Judgement};
use antiphon::op::DocumentId;
use antiphon::replica::{Config, Options};
use antiphon::rng::{Ratio, Rng};
use antiphon::storage::{Continuity, Storage};
use antiphon_memory::Disk;
use antiphon_sim::World;
use antiphon_sim::link::{Counters, Faults};
use antiphon_sim::world::{Crash, Medium, NodeId, PathId};
use serde::Serialize;

const NAMES: [&str; 3] = ["a", "b", "c"];

/// How much virtual time the replicas have, at each point where they must agree.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Fixes what the network does, who writes and when: the same number, the same run.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Prints one JSON object a line.
    #[arg(long)]
    json: bool,
}

/// Why the demo did not end well.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What it has to say can't be written.
    Output(io::Error),
    /// A disk can't be read, or holds what it must not hold.
    Disk { name: &'static str, reason: String },
    /// The disks hold different things, or not everything that was written.
    Apart(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Output(error) => write!(f, "the output can't be written: {error}"),
            Self::Disk { name, reason } => write!(f, "the disk of {name}: {reason}"),
            Self::Apart(how) => write!(f, "not in step: {how}"),
        }
    }
}

/// What has happened so far, when an act is over.
#[derive(Debug, Serialize)]
struct Act {
    /// Virtual time since the start.
    at_us: u64,
    act: String,
    /// On the disks of a, b and c.
    ops: [u64; 3],
    frames: Frames,
}

/// What the network did to frames so far.
#[derive(Debug, Serialize)]
struct Frames {
    sent: u64,
    lost: u64,
    duplicated: u64,
    corrupted: u64,
}

/// How it ended.
#[derive(Debug, Serialize)]
struct Outcome {
    in_step: bool,
    replicas: usize,
    ops: u64,
    heads: Option<String>,
}

/// Plays all acts, and compares the disks.
pub(crate) fn run(arguments: &Arguments, out: &mut impl Write) -> Result<(), Failure> {
    let mut demo = Demo::new(arguments, out);
    demo.play()?;
    let Demo { mut world, nodes, written, .. } = demo;
    // Everybody leaves, so that what is compared are disks in their own right and not what somebody has in memory.
    nodes.iter().for_each(|node| world.stop(*node));
    let disks = nodes.map(|node| world.disk(node).clone());
    let judged = judge(&disks, &document(), written);
    if arguments.json {
        let outcome = match &judged {
            Ok(held) => Outcome { in_step: true, replicas: disks.len(), ops: held.ops, heads: Some(held.hex()) },
            Err(_) => Outcome { in_step: false, replicas: disks.len(), ops: written, heads: None },
        };
        json(out, &outcome)?;
    } else if let Ok(held) = &judged {
        writeln!(out, "in step: {} replicas, {} ops, heads {}", disks.len(), held.ops, held.hex())?;
    }
    judged.map(|_| ())
}

fn document() -> DocumentId {
    DocumentId::new("demo", antiphon::op::DEFAULT_BRANCH, antiphon::op::DEFAULT_SCOPE).expect("the name is valid")
}

fn json(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    writeln!(out)
}

// -------------------------------------------------------------------------------------------- the acts

struct Demo<'a, W> {
    out: &'a mut W,
    json: bool,
    document: DocumentId,
    dice: Rng,
    faults: Faults,
    world: World,
    nodes: [NodeId; 3],
    /// a to b, b to c, c to a.
    paths: [PathId; 3],
    /// Ops that the apps appended.
    written: u64,
}

impl<'a, W: Write> Demo<'a, W> {
    fn new(arguments: &Arguments, out: &'a mut W) -> Self {
        let document = document();
        let mut dice = Rng::new(arguments.seed);
        let mut one_in = |from: u64, to: u64| Ratio::one_in((from + dice.below(to - from)) as u32);
        let (loss, duplicate) = (one_in(5, 15), one_in(15, 40));
        let (reorder, corrupt) = (one_in(10, 30), one_in(20, 60));
        let faults = Faults {
            latency: Duration::from_millis(5 + dice.below(36)),
            jitter: Duration::from_millis(dice.below(11)),
            loss,
            duplicate,
            reorder,
            reorder_delay: Duration::from_millis(15),
            corrupt,
            ..Faults::NONE
        };
        let mut world = World::new(dice.next_u64());
        let nodes = [(); 3].map(|()| world.add(Config::default()));
        nodes.iter().for_each(|node| world.open(*node, &document, Options::default()));
        let medium = Medium::datagram(faults);
        let paths = [(0, 1), (1, 2), (2, 0)].map(|(from, to)| world.join(nodes[from], nodes[to], medium));
        Self { out, json: arguments.json, document, dice, faults, world, nodes, paths, written: 0 }
    }

    fn play(&mut self) -> Result<(), Failure> {
        let [_, b, c] = self.nodes;
        let Faults { latency, jitter, loss, duplicate, corrupt, .. } = self.faults;
        let slowest = latency + jitter;
        self.headline()?;
        self.tell(format!(
            "a, b and c are joined; of their frames {loss} are lost, {duplicate} doubled, {corrupt} damaged, all take {} \
             to {} ms",
            latency.as_millis(),
            slowest.as_millis(),
        ))?;

        self.write(&[0, 1, 2], 24);
        self.tell("all three write".into())?;
        self.agree("they are in step")?;

        let [_, b_to_c, c_to_a] = self.paths;
        self.world.cut(b_to_c, false);
        self.world.cut(c_to_a, false);
        self.write(&[0, 1, 2, 2], 32);
        self.tell("c's links go dead without a word; c and the others write on".into())?;
        self.world.run_for(Duration::from_secs(40));
        self.tell("40 s of silence: the sessions with c have ended".into())?;
        self.world.mend(b_to_c);
        self.world.mend(c_to_a);
        self.agree("c's links are back, and all have what the others wrote")?;

        self.write(&[0, 1, 1, 2], 12);
        self.world.crash(b, Crash::Kill);
        self.tell("b is killed as it writes; its disk keeps what was written".into())?;
        self.write(&[0, 2], 12);
        self.world.start(b, Continuity::Proven);
        self.tell("b is back, under its old id, while the others wrote on".into())?;
        self.agree("b has caught up")?;

        let unsynced = self.world.disk(c).unsynced();
        let keep = unsynced / 2;
        let before = self.held();
        self.world.crash(c, Crash::PowerLoss { keep });
        let lost = before[2] - self.held()[2];
        self.tell(format!("c loses power, and with it {lost} ops that its disk had not synced"))?;
        self.write(&[0, 1], 10);
        self.world.start(c, Continuity::Broken);
        self.write(&[0, 1, 2], 6);
        self.tell("c is back under a new id, so that no number of its is given out twice; all write".into())?;
        self.agree("c has its lost ops back from the others")
    }

    /// As many ops, by these replicas as the dice fall, with a little time between them.
    fn write(&mut self, writers: &[usize], ops: u64) {
        for _ in 0..ops {
            let writer = writers[self.dice.below(writers.len() as u64) as usize];
            self.written += 1;
            self.world.append(self.nodes[writer], &self.document, format!("{} wrote {}", NAMES[writer], self.written));
            self.world.run_for(Duration::from_millis(self.dice.below(60)));
        }
    }

    /// Lets time go by until all hold everything that was written.
    fn agree(&mut self, act: &str) -> Result<(), Failure> {
        let (nodes, document) = (self.nodes, self.document.clone());
        let agreed = self.world.run_until(PATIENCE, |world| {
            let mut digests = nodes.iter().map(|node| Some(world.replica(*node)?.document(&document)?.0.digest()));
            let first = digests.next().flatten();
            first.is_some() && digests.all(|digest| digest == first)
        });
        let act = if agreed { act.into() } else { format!("not in step after {} s", PATIENCE.as_secs()) };
        self.tell(act)
    }

    /// How many ops the disks hold.
    fn held(&self) -> [u64; 3] {
        self.nodes.map(|node| {
            let copy = self.world.disk(node).backup().open();
            copy.ok().and_then(|mut copy| copy.document(&self.document).ok()).map_or(0, |document| document.tail)
        })
    }

    fn headline(&mut self) -> io::Result<()> {
        if self.json {
            return Ok(());
        }
        writeln!(self.out, "{:>9}  {:^14}  {:^20}", "virtual", "ops held by", "frames")?;
        let [a, b, c] = NAMES;
        writeln!(self.out, "{:>9}  {a:>4} {b:>4} {c:>4}  {:>6} {:>6} {:>6}  act", "time", "lost", "twice", "bad")
    }

    fn tell(&mut self, act: String) -> Result<(), Failure> {
        let mut total = Counters::default();
        self.paths.iter().flat_map(|path| self.world.counters(*path)).for_each(|side| total.add(side));
        let Counters { sent, lost, duplicated, corrupted, .. } = total;
        let frames = Frames { sent, lost, duplicated, corrupted };
        let act = Act { at_us: self.world.now().as_micros(), act, ops: self.held(), frames };
        if self.json {
            return Ok(json(self.out, &act)?);
        }
        let Act { at_us, act, ops: [a, b, c], .. } = act;
        let at = format!("{}.{:03} s", at_us / 1_000_000, at_us / 1000 % 1000);
        writeln!(self.out, "{at:>9}  {a:>4} {b:>4} {c:>4}  {lost:>6} {duplicated:>6} {corrupted:>6}  {act}")?;
        Ok(())
    }
}

// -------------------------------------------------------------------------------------------- the verdict

/// What a disk holds of a document.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Held {
    ops: u64,
    digest: u64,
}

impl Held {
    fn hex(self) -> String {
        format!("{:016x}", self.digest)
    }
}

/// What all disks hold, if all hold the same `written` ops.
fn judge(disks: &[Disk; 3], document: &DocumentId, written: u64) -> Result<Held, Failure> {
    let mut all = Vec::new();
    for (name, disk) in NAMES.into_iter().zip(disks) {
        all.push(read(disk, document).map_err(|reason| Failure::Disk { name, reason })?);
    }
    let each = NAMES.iter().zip(&all).map(|(name, held)| format!("{name} has {} ops {}", held.ops, held.hex()));
    let each = each.collect::<Vec<_>>().join(", ");
    let [first, others @ ..] = &all[..] else { return Err(Failure::Apart("there are no disks".into())) };
    if others.iter().any(|other| other != first) {
        return Err(Failure::Apart(each));
    }
    if first.ops == written { Ok(*first) } else { Err(Failure::Apart(format!("{written} ops were written, {each}"))) }
}

/// Reads a disk, and computes the heads anew from nothing but the ops.
fn read(disk: &Disk, document: &DocumentId) -> Result<Held, String> {
    let mut storage = disk.open().map_err(|error| error.to_string())?;
    let mut heads = Heads::new();
    let mut ops = 0;
    loop {
        let entries = storage.read(document, ops, 1 << 20).map_err(|error| error.to_string())?;
        if entries.is_empty() {
            break;
        }
        for entry in entries {
            let id = entry.op.id;
            let head = heads.get(id.author);
            let next: Head = head.then(entry.op.body.hash());
            if head.judge(id.seq) != Judgement::Next || next.chain != entry.chain {
                return Err(format!("op {} of {} does not follow those before it", id.seq, id.author));
            }
            heads.set(id.author, next);
            ops += 1;
        }
    }
    let stored = storage.document(document).map_err(|error| error.to_string())?;
    if stored.heads != heads || stored.tail != ops {
        return Err("its heads are not those of its ops".into());
    }
    Ok(Held { ops, digest: heads.digest() })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use antiphon::log::Log;
    use antiphon::op::{Body, ReplicaId, Timeline};
    use antiphon::storage::{Batch, Transaction};
    use antiphon::timeline::Opens;

    use super::*;

    /// A disk with these ops of one author.
    fn disk(bodies: &[&'static str]) -> Disk {
        let disk = Disk::new();
        let mut log = Log::new(Arc::new(Opens::first(Timeline::new(1))));
        for body in bodies {
            log.append(ReplicaId([1; 16]), Body::Bytes((*body).into()));
        }
        let entries = log.entries().cloned().collect();
        let (document, cursors) = (document(), Vec::new());
        let batch = Batch { document, position: 0, entries, cursors, timeline: None, salvaged: None };
        disk.open().unwrap().write(&Transaction::Append(Arc::new(batch))).unwrap();
        disk
    }

    #[test]
    fn disks_that_hold_the_same_are_in_step() {
        let disks = [(); 3].map(|()| disk(&["x", "y"]));
        let held = judge(&disks, &document(), 2).unwrap();
        assert_eq!(held.ops, 2);
        assert_ne!(held.digest, 0);
    }

    #[test]
    fn disks_that_differ_are_not() {
        let other_body = judge(&[disk(&["x", "y"]), disk(&["x", "y"]), disk(&["x", "z"])], &document(), 2);
        assert!(matches!(other_body, Err(Failure::Apart(_))), "{other_body:?}");
        let fewer = judge(&[disk(&["x", "y"]), disk(&["x"]), disk(&["x", "y"])], &document(), 2);
        assert!(matches!(fewer, Err(Failure::Apart(_))), "{fewer:?}");
    }

    #[test]
    fn what_all_have_lost_is_missed() {
        let lost = judge(&[(); 3].map(|()| disk(&["x"])), &document(), 2).unwrap_err();
        assert!(lost.to_string().starts_with("not in step: 2 ops were written, a has 1 ops "), "{lost}");
    }

    #[test]
    fn a_disk_in_use_is_no_evidence() {
        let disks = [(); 3].map(|()| disk(&["x"]));
        let _held = disks[1].open().unwrap();
        let refused = judge(&disks, &document(), 1).unwrap_err();
        assert_eq!(refused.to_string(), "the disk of b: the disk is in use: one holder at a time");
    }
}
