//! The built-in models: small scopes in which each thing that may go wrong does, at every moment.

use std::sync::Arc;

use antiphon::codes::Code;
use antiphon::heads::Head;
use antiphon::op::{Body, Cursor, Entry, Op, OpId, Origin, ReplicaId, Timeline};
use antiphon::replica::{Admission, Authority, Config, Options};
use antiphon::session::{self, FRAME_BYTES_MIN, Transport};
use antiphon::storage::{Batch, Continuity, Identity, Storage, Transaction};
use antiphon::timeline::{Opens, TimelineRecord};
use antiphon::wire::Limits as WireLimits;
use bytes::Bytes;

use crate::disk::{Disk, Refused};
use crate::explore::{Limits, Report, Violation, explore};
use crate::host::Host;
use crate::network::{Network, Node, Scope, document, entropy};
use crate::participant::Participant;

/// A built-in model.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// What kind of network it is: `sessions`, `datagram`, `pair` or `chain`.
    pub model: &'static str,
    /// What may go wrong in it.
    pub name: &'static str,
    run: Run,
}

type Run = fn(&Limits, &mut dyn FnMut(&Report)) -> Result<Report, Box<Violation>>;

impl Case {
    /// Explores it.
    ///
    /// # Errors
    /// The first law that is found broken.
    pub fn explore(&self, limits: &Limits, progress: &mut dyn FnMut(&Report)) -> Result<Report, Box<Violation>> {
        (self.run)(limits, progress)
    }
}

/// All built-in models, by kind.
///
/// - `sessions`: two bare [`Session`](antiphon::Session)s with small hosts, on a reliable transport;
/// - `datagram`: the same on datagrams;
/// - `pair`: two whole [`Replica`](antiphon::Replica)s;
/// - `chain`: three of them in a chain, on a reliable transport.
pub fn catalogue() -> Vec<Case> {
    macro_rules! cases {
        ($($model:literal $name:literal $network:expr;)*) => {
            vec![$(Case { model: $model, name: $name, run: |limits, progress| run(&$network, limits, progress) }),*]
        };
    }
    cases! {
        // From the first frame on.
        "sessions" "cut" sessions(Scope { cuts: 1, timers: 3, ..RELIABLE.of(&[1, 1]) });
        "sessions" "crash" sessions(Scope { crashes: 1, timers: 3, ..RELIABLE.of(&[1, 1]) });
        "sessions" "crash-cut" sessions(Scope { cuts: 1, crashes: 1, timers: 2, ..RELIABLE.of(&[1, 1]) });
        "sessions" "hang" sessions(Scope { hangs: 1, timers: 2, ..RELIABLE.of(&[1, 1]) });
        "sessions" "skip" sessions(Scope { skips: 1, timers: 2, ..RELIABLE.of(&[3, 1]) });
        "sessions" "credit" tight_sessions(Scope { timers: 6, ..RELIABLE });
        "sessions" "heads" sessions_without_cursors(Scope { cuts: 1, timers: 3, ..RELIABLE.of(&[1, 1]) });
        "sessions" "forked" forked_sessions();
        "sessions" "tail-lost" sessions_with_a_lost_tail();
        "sessions" "copy" sessions_with_a_copy();
        "datagram" "mishap" sessions(Scope { mishaps: 1, timers: 3, ..DATAGRAM.of(&[1, 1]) });
        "datagram" "mishaps" sessions(Scope { mishaps: 2, timers: 2, ..DATAGRAM.of(&[2, 0]) });
        "datagram" "crash" sessions(Scope { crashes: 1, timers: 2, ..DATAGRAM.of(&[1, 1]) });
        "datagram" "heads" sessions_without_cursors(Scope { mishaps: 1, timers: 2, ..DATAGRAM.of(&[1, 0]) });
        "datagram" "credit" tight_sessions(Scope { mishaps: 1, timers: 2, ..DATAGRAM });
        "pair" "cut" replicas(Scope { cuts: 1, timers: 3, ..RELIABLE.of(&[1, 1]) });
        "pair" "cuts" replicas(Scope { cuts: 2, timers: 2, ..RELIABLE.of(&[2, 1]) });
        "pair" "crash" replicas(Scope { crashes: 1, timers: 3, ..RELIABLE.of(&[1, 1]) });
        "pair" "crash-cut" replicas(Scope { cuts: 1, crashes: 1, timers: 2, ..RELIABLE.of(&[1, 1]) });
        "pair" "power" replicas(Scope { power_losses: 1, timers: 3, ..RELIABLE.of(&[1, 1]) });
        "pair" "failure" replicas(Scope { failures: 1, timers: 3, ..RELIABLE.of(&[1, 1]) });
        "pair" "slow" slow_replicas(Scope { cuts: 1, timers: 2, ..RELIABLE.of(&[1, 1]) });
        "pair" "slow-failure" slow_replicas(Scope { failures: 1, timers: 2, ..RELIABLE.of(&[1, 1]) });
        "pair" "datagram" replicas(Scope { mishaps: 1, timers: 2, ..DATAGRAM.of(&[1, 1]) });
        "pair" "asked" asked(Scope { cuts: 1, timers: 1, ..RELIABLE.of(&[1, 1]) });
        "pair" "restored" restored(Authority::Nobody);
        "pair" "reset" restored(Authority::Upstream);
        "chain" "cut" replicas(Scope { cuts: 1, timers: 1, ..RELIABLE.of(&[1, 0, 1]) });
        "chain" "crash" replicas(Scope { crashes: 1, timers: 1, ..RELIABLE.of(&[1, 0, 1]) });
        "chain" "ring" ring(Scope { cuts: 1, timers: 1, ..RELIABLE.of(&[1, 0, 1]) });
        "chain" "clones" clones(RELIABLE);
        "chain" "clones-datagram" clones(Scope { mishaps: 1, ..DATAGRAM });
        // With all in step before anything happens.
        "sessions" "live-cuts" sessions(Scope { cuts: 2, timers: 3, ..RELIABLE.of(&[2, 1]) }).settled();
        "sessions" "live-crashes" sessions(Scope { crashes: 2, timers: 3, ..RELIABLE.of(&[2, 1]) }).settled();
        "sessions" "live-parts" sessions_in_parts(Scope { cuts: 1, timers: 3, ..RELIABLE }).settled();
        "sessions" "live-wait" sessions(Scope { waits: 2, timers: 1, ..RELIABLE.of(&[2, 1]) }).settled();
        "datagram" "live-mishaps" sessions(Scope { mishaps: 2, timers: 3, ..DATAGRAM.of(&[2, 1]) }).settled();
        "datagram" "live-crash" sessions(Scope { mishaps: 1, crashes: 1, timers: 2, ..DATAGRAM.of(&[1, 1]) }).settled();
        "datagram" "live-parts" sessions_in_parts(Scope { mishaps: 2, timers: 3, ..DATAGRAM }).settled();
        "datagram" "live-credit" tight_sessions(Scope { mishaps: 2, timers: 3, ..DATAGRAM }).settled();
        "pair" "live-power" replicas(Scope { power_losses: 1, timers: 3, ..RELIABLE.of(&[1, 1]) }).settled();
        "pair" "live-slow" slow_replicas(Scope { crashes: 1, timers: 3, ..RELIABLE.of(&[2, 1]) }).settled();
        "pair" "live-wait" replicas(Scope { waits: 2, timers: 1, ..RELIABLE.of(&[2, 1]) }).settled();
        "pair" "live-datagram" replicas(Scope { mishaps: 2, timers: 3, ..DATAGRAM.of(&[1, 1]) }).settled();
        "chain" "live-cut" replicas(Scope { cuts: 1, timers: 3, ..RELIABLE.of(&[1, 0, 1]) }).settled();
        "chain" "live-crash" replicas(Scope { crashes: 1, timers: 3, ..RELIABLE.of(&[1, 0, 1]) }).settled();
        "chain" "live-ring" ring(Scope { crashes: 1, timers: 2, ..RELIABLE.of(&[1, 0, 1]) }).settled();
    }
}

fn run<N: Node>(
    network: &Network<N>,
    limits: &Limits,
    progress: &mut dyn FnMut(&Report),
) -> Result<Report, Box<Violation>> {
    explore(network, limits, progress)
}

const RELIABLE: Scope = Scope::quiet(Transport::Reliable);
const DATAGRAM: Scope = Scope::quiet(Transport::Datagram { mtu: 1200 });

impl Scope {
    /// The same, with so many ops of two bytes that each node appends.
    fn of(&self, counts: &[usize]) -> Self {
        let bodies =
            |(node, count): (u8, &usize)| (b'1'..).take(*count).map(|number| vec![b'a' + node, number]).collect();
        Self { appends: (0..).zip(counts).map(bodies).collect(), ..self.clone() }
    }
}

// -------------------------------------------------------------------------------------------- bare sessions

fn hosts(limits: WireLimits, disks: [Disk; 2], scope: Scope) -> Network<Host> {
    let config = session::Config { transport: scope.transport, limits, ..session::Config::default() };
    let host = |(number, disk)| Host::new(number, config.clone(), disk);
    Network::new((0..).zip(disks).map(host).collect(), vec![[0, 1]], scope)
}

fn sessions(scope: Scope) -> Network<Host> {
    hosts(WireLimits::default(), Default::default(), scope)
}

/// A window that has room for either op of the first end, and not for both.
fn tight_sessions(scope: Scope) -> Network<Host> {
    let appends = vec![vec![b"a1".to_vec(), vec![b'a'; 60]], vec![b"b1".to_vec()]];
    let limits = WireLimits { window: 100, credit: 1000, ..WireLimits::default() };
    hosts(limits, Default::default(), Scope { appends, ..scope })
}

/// An op that fits no frame, and others beside it.
fn sessions_in_parts(scope: Scope) -> Network<Host> {
    let appends = vec![vec![vec![b'a'; 1000], b"a2".to_vec()], vec![b"b1".to_vec()]];
    let limits = WireLimits { frame: FRAME_BYTES_MIN, ..WireLimits::default() };
    hosts(limits, Default::default(), Scope { appends, ..scope })
}

// -------------------------------------------------------------------------------------------- replicas

fn participants(config: &Config, nodes: Vec<(Options, Disk)>, scope: Scope) -> Network<Participant> {
    let links = (1..nodes.len()).map(|node| [node - 1, node]).collect();
    let transport = scope.transport;
    let participant = |(number, (options, disk))| Participant::new(number, config.clone(), options, transport, disk);
    Network::new(nodes.into_iter().enumerate().map(participant).collect(), links, scope)
}

/// As many as append, or could, in a chain.
fn replicas(scope: Scope) -> Network<Participant> {
    let disk = if scope.power_losses > 0 { Disk::unsynced() } else { Disk::new() };
    participants(&Config::default(), vec![(Options::default(), disk); scope.appends.len()], scope)
}

fn participant(number: usize, config: Config, scope: &Scope) -> Participant {
    Participant::new(number, config, Options::default(), scope.transport, Disk::new())
}

fn slow_replicas(scope: Scope) -> Network<Participant> {
    let nodes = [0, 1].map(|number| participant(number, Config::default(), &scope).slow());
    Network::new(nodes.into(), vec![[0, 1]], scope)
}

/// Each of three replicas is linked with the other two.
fn ring(scope: Scope) -> Network<Participant> {
    let nodes = [0, 1, 2].map(|number| participant(number, Config::default(), &scope));
    Network::new(nodes.into(), vec![[0, 1], [1, 2], [0, 2]], scope)
}

/// The apps of both are asked which documents a peer may have.
fn asked(scope: Scope) -> Network<Participant> {
    let config = || Config { documents: Admission::Ask, ..Config::default() };
    let nodes = [0, 1].map(|number| participant(number, config(), &scope));
    Network::new(nodes.into(), vec![[0, 1]], scope)
}

// -------------------------------------------------------------------------------------------- disks with a past

/// Who a node was before the run began, and when.
fn id(node: usize) -> ReplicaId {
    ReplicaId([node as u8 + 1; 16])
}

fn before(node: usize) -> Timeline {
    Timeline::new(node as u64 + 1)
}

/// Somebody who is not here any more, and by whom its ops came.
const STRANGER: ReplicaId = ReplicaId([0xff; 16]);
const STRANGE: Option<Origin> = Some(Origin(Timeline::new(0xff).0));

/// The disk of a node that was open once, and then held these ops and held the peer's log up to this cursor.
fn disk_with(
    node: usize,
    ops: &[(ReplicaId, &'static str, Option<Origin>)],
    cursors: &[(ReplicaId, Cursor)],
) -> Result<Disk, Refused> {
    let mut disk = Disk::new();
    let identity = Identity { replica: id(node), former: Vec::new(), opens: Opens::first(before(node)) };
    disk.write(&Transaction::Identity(identity))?;
    for (position, (author, body, origin)) in (0..).zip(ops) {
        let body = Body::Bytes(Bytes::from_static(body.as_bytes()));
        let Head { seq, chain } = disk.heads(&document()).get(*author).then(body.hash());
        let op = Op { id: OpId { author: *author, seq }, body };
        let record = TimelineRecord { open: 1, timeline: before(node), begins: 0 };
        let batch = Batch {
            document: document(),
            position,
            entries: vec![Entry { op, chain, origin: *origin }],
            cursors: cursors.to_vec(),
            timeline: (position == 0).then_some(record),
            salvaged: None,
        };
        disk.write(&Transaction::Append(Arc::new(batch)))?;
    }
    Ok(disk)
}

/// Each holds something that the other lacks, and neither knows what the other has.
fn sessions_without_cursors(scope: Scope) -> Network<Host> {
    let both = (STRANGER, "x", STRANGE);
    let disks =
        [disk_with(0, &[both, (STRANGER, "y", STRANGE)], &[]), disk_with(1, &[both, (id(1), "own", None)], &[])];
    hosts(WireLimits::default(), disks.map(past), scope)
}

/// Both hold another first op of the same author, and believe to hold all that the other has.
fn forked_sessions() -> Network<Host> {
    let knows = |node: usize| [(id(node), Cursor { timeline: before(node), position: 1 })];
    let disks =
        [disk_with(0, &[(STRANGER, "x", STRANGE)], &knows(1)), disk_with(1, &[(STRANGER, "y", STRANGE)], &knows(0))];
    let closings = vec![Code::MISMATCH];
    let scope = Scope { timers: 3, closings, unfit: true, forks: true, ..RELIABLE.of(&[1, 1]) };
    hosts(WireLimits::default(), disks.map(past), scope)
}

/// The first end has lost two ops of which the second knows, and in the very timeline in which it is. Whatever it
/// authors, it has not as many again.
fn sessions_with_a_lost_tail() -> Network<Host> {
    let mut drawn = entropy(0, 1);
    let now = Identity::reopen(None, Continuity::Proven, &mut drawn).opens.current();
    let ops_held = ["x", "y", "z"].map(|body| (STRANGER, body, STRANGE));
    let knows = [(id(0), Cursor { timeline: now, position: 3 })];
    let disks = [disk_with(0, &ops_held[..1], &[]), disk_with(1, &ops_held, &knows)];
    let closings = vec![Code::TAIL_LOST, Code::MISMATCH];
    let scope = Scope { timers: 3, closings, unfit: true, ..RELIABLE.of(&[1, 1]) };
    hosts(WireLimits::default(), disks.map(past), scope)
}

/// The second end is a copy: its original has sent the first end an op under a new id, in the timeline that both remember.
fn sessions_with_a_copy() -> Network<Host> {
    let by = |replica| Some(Origin::of(replica, before(1)));
    let knows = [(id(1), Cursor { timeline: before(1), position: 1 })];
    let held = [(id(1), "copied", by(id(1))), (STRANGER, "under a new id", by(STRANGER))];
    let disks = [disk_with(0, &held, &knows), disk_with(1, &[(id(1), "copied", None)], &[])];
    hosts(WireLimits::default(), disks.map(past), Scope { cuts: 1, timers: 2, ..RELIABLE.of(&[1, 1]) })
}

/// The two ends of a chain are copies of one replica and do not meet: what each authors forks in the middle.
fn clones(transport: Scope) -> Network<Participant> {
    let copy = |node: usize| {
        let mut disk = Disk::new();
        let identity = Identity { replica: id(0), former: Vec::new(), opens: Opens::first(before(node)) };
        disk.write(&Transaction::Identity(identity)).map(|()| disk)
    };
    let disks = [copy(0), Ok(Disk::new()), Ok(Disk::new()), copy(3)];
    let (closings, renewals) = (vec![Code::MISMATCH, Code::SET_BACK], 2);
    let scope = Scope { closings, renewals, unfit: true, copies: true, forks: true, ..transport.of(&[1, 0, 0, 2]) };
    participants(&Config::default(), disks.map(|disk| (Options::default(), past(disk))).into(), scope)
}

/// The first was restored from a backup and does not know it: the second holds an op of its that it has lost.
fn restored(authority: Authority) -> Network<Participant> {
    let knows = [(id(0), Cursor { timeline: before(0), position: 1 })];
    let disks = [disk_with(0, &[], &[]), disk_with(1, &[(id(0), "lost", Some(Origin::of(id(0), before(0))))], &knows)]
        .map(past);
    let [first, second] = disks;
    let (forks, renewals) = match authority {
        Authority::Upstream => (false, 2),
        Authority::Nobody | Authority::Us => (true, 1),
    };
    let closings = vec![Code::SET_BACK, Code::MISMATCH, Code::RESET];
    let scope = Scope { timers: 2, closings, renewals, unfit: true, forks, ..RELIABLE.of(&[1, 1]) };
    let options = |authority| Options { authority, ..Options::default() };
    let decides = if authority == Authority::Upstream { Authority::Us } else { Authority::Nobody };
    participants(&Config::default(), vec![(options(authority), first), (options(decides), second)], scope)
}

/// A past that was written with care.
fn past(disk: Result<Disk, Refused>) -> Disk {
    disk.unwrap_or_else(|refused| panic!("{refused}"))
}
