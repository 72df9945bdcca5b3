//! The built-in models: small scopes in which each thing that may go wrong does, at every moment.

use std::sync::Arc;

use antiphon::codes::Code;
use antiphon::heads::Head;
use antiphon::op::{Body, Cursor, Entry, Op, OpId, ReplicaId, Timeline};
use antiphon::replica::{self, Authority, Options};
use antiphon::session::{self, Transport};
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
        "sessions" "cut" sessions(Scope { appends: ops(&[1, 1]), cuts: 1, timers: 3, ..RELIABLE });
        "sessions" "crash" sessions(Scope { appends: ops(&[1, 1]), crashes: 1, timers: 3, ..RELIABLE });
        "sessions" "crash-cut" sessions(Scope { appends: ops(&[1, 1]), cuts: 1, crashes: 1, timers: 2, ..RELIABLE });
        "sessions" "hang" sessions(Scope { appends: ops(&[1, 1]), hangs: 1, timers: 2, ..RELIABLE });
        "sessions" "skip" sessions(Scope { appends: ops(&[3, 1]), skips: 1, timers: 2, ..RELIABLE });
        "sessions" "credit" tight_sessions(Scope { timers: 6, ..RELIABLE });
        "sessions" "forked" forked_sessions();
        "sessions" "tail-lost" sessions_with_a_lost_tail();
        "datagram" "mishap" sessions(Scope { appends: ops(&[1, 1]), mishaps: 1, timers: 3, ..DATAGRAM });
        "datagram" "mishaps" sessions(Scope { appends: ops(&[2, 0]), mishaps: 2, timers: 2, ..DATAGRAM });
        "datagram" "crash" sessions(Scope { appends: ops(&[1, 1]), crashes: 1, timers: 2, ..DATAGRAM });
        "datagram" "credit" tight_sessions(Scope { mishaps: 1, timers: 2, ..DATAGRAM });
        "sessions" "live-cuts" sessions(Scope { appends: ops(&[2, 1]), cuts: 2, timers: 3, ..RELIABLE }).settled();
        "sessions" "live-crashes" sessions(Scope { appends: ops(&[2, 1]), crashes: 2, timers: 3, ..RELIABLE }).settled();
        "datagram" "live-mishaps" sessions(Scope { appends: ops(&[2, 1]), mishaps: 2, timers: 3, ..DATAGRAM }).settled();
        "datagram" "live-crash" sessions(Scope { appends: ops(&[1, 1]), mishaps: 1, crashes: 1, timers: 2, ..DATAGRAM }).settled();
        "datagram" "live-credit" tight_sessions(Scope { mishaps: 2, timers: 3, ..DATAGRAM }).settled();
        "pair" "live-power" replicas(2, Scope { appends: ops(&[1, 1]), power_losses: 1, timers: 3, ..RELIABLE }).settled();
        "pair" "live-datagram" replicas(2, Scope { appends: ops(&[1, 1]), mishaps: 2, timers: 3, ..DATAGRAM }).settled();
        "chain" "live-cut" replicas(3, Scope { appends: ops(&[1, 0, 1]), cuts: 1, timers: 3, ..RELIABLE }).settled();
        "chain" "live-crash" replicas(3, Scope { appends: ops(&[1, 0, 1]), crashes: 1, timers: 3, ..RELIABLE }).settled();
        "pair" "cut" replicas(2, Scope { appends: ops(&[1, 1]), cuts: 1, timers: 3, ..RELIABLE });
        "pair" "crash" replicas(2, Scope { appends: ops(&[1, 1]), crashes: 1, timers: 3, ..RELIABLE });
        "pair" "power" replicas(2, Scope { appends: ops(&[1, 1]), power_losses: 1, timers: 3, ..RELIABLE });
        "pair" "crash-cut" replicas(2, Scope { appends: ops(&[1, 1]), cuts: 1, crashes: 1, timers: 2, ..RELIABLE });
        "pair" "cuts" replicas(2, Scope { appends: ops(&[2, 1]), cuts: 2, timers: 2, ..RELIABLE });
        "pair" "failure" replicas(2, Scope { appends: ops(&[1, 1]), failures: 1, timers: 3, ..RELIABLE });
        "pair" "datagram" replicas(2, Scope { appends: ops(&[1, 1]), mishaps: 1, timers: 2, ..DATAGRAM });
        "pair" "restored" restored(Authority::Nobody);
        "pair" "reset" restored(Authority::Upstream);
        "chain" "cut" replicas(3, Scope { appends: ops(&[1, 0, 1]), cuts: 1, timers: 1, ..RELIABLE });
        "chain" "crash" replicas(3, Scope { appends: ops(&[1, 0, 1]), crashes: 1, timers: 1, ..RELIABLE });
        "chain" "clones" clones(RELIABLE);
        "chain" "clones-datagram" clones(Scope { mishaps: 1, ..DATAGRAM });
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

/// Bodies of two bytes: so many a node.
fn ops(counts: &[usize]) -> Vec<Vec<Vec<u8>>> {
    let bodies = |(node, count): (u8, &usize)| (b'1'..).take(*count).map(|number| vec![b'a' + node, number]).collect();
    (0..).zip(counts).map(bodies).collect()
}

fn hosts(config: &session::Config, disks: [Disk; 2], scope: Scope) -> Network<Host> {
    let host = |(number, disk)| {
        let config = session::Config { transport: scope.transport, ..config.clone() };
        Host::new(number, config, disk)
    };
    Network::new((0..).zip(disks).map(host).collect(), vec![[0, 1]], scope)
}

fn sessions(scope: Scope) -> Network<Host> {
    hosts(&session::Config::default(), Default::default(), scope)
}

/// A window that has room for either op of the first end, and not for both.
fn tight_sessions(scope: Scope) -> Network<Host> {
    let appends = vec![vec![b"a1".to_vec(), vec![b'a'; 60]], vec![b"b1".to_vec()]];
    let limits = WireLimits { window: 100, credit: 1000, ..WireLimits::default() };
    hosts(&session::Config { limits, ..session::Config::default() }, Default::default(), Scope { appends, ..scope })
}

fn participants(nodes: Vec<(Options, Disk)>, scope: Scope) -> Network<Participant> {
    let links = (1..nodes.len()).map(|node| [node - 1, node]).collect();
    let participant = |(number, (options, disk))| {
        Participant::new(number, replica::Config::default(), options, scope.transport, disk)
    };
    let nodes = nodes.into_iter().enumerate().map(participant).collect();
    Network::new(nodes, links, scope)
}

fn replicas(count: usize, scope: Scope) -> Network<Participant> {
    let disk = if scope.power_losses > 0 { Disk::unsynced() } else { Disk::new() };
    participants(vec![(Options::default(), disk); count], scope)
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
const STRANGE: Option<Timeline> = Some(Timeline::new(0xff));

/// The disk of a node that was open once, and then held these ops and held the peer's log up to this cursor.
fn disk_with(
    node: usize,
    ops: &[(ReplicaId, &'static str, Option<Timeline>)],
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

/// Both hold another first op of the same author, and believe to hold all that the other has.
fn forked_sessions() -> Network<Host> {
    let knows = |node: usize| [(id(node), Cursor { timeline: before(node), position: 1 })];
    let disks =
        [disk_with(0, &[(STRANGER, "x", STRANGE)], &knows(1)), disk_with(1, &[(STRANGER, "y", STRANGE)], &knows(0))];
    let scope = Scope {
        appends: ops(&[1, 1]),
        timers: 3,
        closings: vec![Code::MISMATCH],
        unfit: true,
        forks: true,
        ..RELIABLE
    };
    hosts(&session::Config::default(), disks.map(past), scope)
}

/// The first end has lost an op of which the second knows, and in the very timeline in which it is.
fn sessions_with_a_lost_tail() -> Network<Host> {
    let mut drawn = entropy(0, 1);
    let now = Identity::reopen(None, Continuity::Proven, &mut drawn).opens.current();
    let (first, second) = ((STRANGER, "x", STRANGE), (STRANGER, "y", STRANGE));
    let knows = [(id(0), Cursor { timeline: now, position: 2 })];
    let disks = [disk_with(0, &[first], &[]), disk_with(1, &[first, second], &knows)];
    let scope = Scope {
        appends: ops(&[1, 1]),
        timers: 3,
        closings: vec![Code::TAIL_LOST, Code::MISMATCH],
        unfit: true,
        ..RELIABLE
    };
    hosts(&session::Config::default(), disks.map(past), scope)
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
    let appends = ops(&[1, 0, 0, 2]);
    let scope = Scope { appends, closings, renewals, unfit: true, copies: true, forks: true, ..transport };
    participants(disks.map(|disk| (Options::default(), past(disk))).into(), scope)
}

/// The first was restored from a backup and does not know it: the second holds an op of its that it has lost.
fn restored(authority: Authority) -> Network<Participant> {
    let knows = [(id(0), Cursor { timeline: before(0), position: 1 })];
    let disks = [disk_with(0, &[], &[]), disk_with(1, &[(id(0), "lost", Some(before(0)))], &knows)].map(past);
    let [first, second] = disks;
    let (forks, renewals) = match authority {
        Authority::Upstream => (false, 2),
        Authority::Nobody | Authority::Us => (true, 1),
    };
    let closings = vec![Code::SET_BACK, Code::MISMATCH, Code::RESET];
    let scope = Scope { appends: ops(&[1, 1]), timers: 2, closings, renewals, unfit: true, forks, ..RELIABLE };
    let options = |authority| Options { authority, ..Options::default() };
    let decides = if authority == Authority::Upstream { Authority::Us } else { Authority::Nobody };
    participants(vec![(options(authority), first), (options(decides), second)], scope)
}

/// A past that was written with care.
fn past(disk: Result<Disk, Refused>) -> Disk {
    disk.unwrap_or_else(|refused| panic!("{refused}"))
}
