//! Plans as text, a line for each thing: what is printed is what is read.
//!
//! ```text
//! seed 42
//! node 0 documents=notes
//! node 1 documents=notes promise=fsync disk=1ms..5ms clock=-3600s,200
//! path 1-0 datagram=1200 upstream latency=20ms loss=1/20
//! frame 1-0 17 drop           # the eighteenth, both ends counted
//! at 100ms node 1: append notes 3x20B
//! at 250ms cut 1>0
//! at 300ms power 1 keep=1/2
//! at 2s start 1
//! at 2500ms mend 1-0
//! heal 5s within 180s 400kB
//! ```

use std::error::Error;
use std::fmt;
use std::mem;
use std::str::FromStr;
use std::time::Duration;

use antiphon::session::Transport;
use antiphon::storage::Continuity;

use super::{Budget, Deed, Fall, NodeName, PathName, Plan, PlannedFrame, PlannedNode, PlannedPath, Step};
use crate::clock::Clock;
use crate::link::Faults;
use crate::text::{bytes_text, duration_text, parse_bytes, parse_duration, parse_ratio};
use crate::world::{DiskState, Medium, Pace, Tamper};

// -------------------------------------------------------------------------------------------- printing

impl<S: fmt::Display, A: fmt::Display> fmt::Display for Plan<S, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}", self.seed)?;
        for PlannedNode { name, down, clock, pace, setup } in &self.nodes {
            let down = down.then(|| "down".to_owned());
            let pace = (*pace != Pace::default()).then(|| format!("disk={}", pace_text(*pace)));
            let clock = (*clock != Clock::default()).then(|| format!("clock={}", clock_text(*clock)));
            let setup = Some(setup.to_string()).filter(|setup| !setup.is_empty());
            writeln!(f, "node {}", joined([Some(name.to_string()), down, pace, clock, setup]))?;
        }
        for PlannedPath { name, medium } in &self.paths {
            let mtu = match medium.transport {
                Transport::Reliable => None,
                Transport::Datagram { mtu } => Some(format!("datagram={mtu}")),
            };
            let upstream = medium.upstream.then(|| "upstream".to_owned());
            let faults = Faults { ordered: false, ..medium.faults }.to_string();
            let faults = Some(faults).filter(|faults| !faults.is_empty());
            writeln!(f, "path {}", joined([Some(path_text(*name)), mtu, upstream, faults]))?;
        }
        for PlannedFrame { path, index, tamper } in &self.frames {
            writeln!(f, "frame {} {index} {}", path_text(*path), tamper_text(*tamper))?;
        }
        for Step { at, deed } in &self.steps {
            writeln!(f, "at {} {}", duration_text(*at), deed_text(deed))?;
        }
        let Budget { time, bytes } = self.budget;
        writeln!(f, "heal {} within {} {}", duration_text(self.heal), duration_text(time), bytes_text(bytes))
    }
}

fn joined<const N: usize>(words: [Option<String>; N]) -> String {
    words.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

fn path_text((first, second): PathName) -> String {
    format!("{first}-{second}")
}

fn pace_text(pace: Pace) -> String {
    if pace.least == pace.most {
        return duration_text(pace.least);
    }
    format!("{}..{}", duration_text(pace.least), duration_text(pace.most))
}

/// How far a clock is ahead, and by how much it is fast.
pub(crate) fn clock_text(clock: Clock) -> String {
    let sign = if clock.skew < 0 { "-" } else { "+" };
    let skew = duration_text(Duration::from_micros(clock.skew.unsigned_abs()));
    let drift = if clock.drift == 0 { String::new() } else { format!(",{:+}", clock.drift) };
    format!("{sign}{skew}{drift}")
}

fn tamper_text(tamper: Tamper) -> String {
    match tamper {
        Tamper::Drop => "drop".to_owned(),
        Tamper::Duplicate => "duplicate".to_owned(),
        Tamper::Swap => "swap".to_owned(),
        Tamper::Delay(time) => format!("delay={}", duration_text(time)),
        Tamper::Flip(bit) => format!("flip={bit}"),
    }
}

const DISK_STATES: [(&str, DiskState); 5] = [
    ("works", DiskState::Works),
    ("stalled", DiskState::Stalled),
    ("fails", DiskState::Fails),
    ("lies", DiskState::Lies),
    ("full", DiskState::Full),
];

/// What a disk is like, in a word.
pub(crate) fn disk_text(state: DiskState) -> &'static str {
    DISK_STATES.iter().find(|(_, known)| *known == state).map_or("works", |(name, _)| name)
}

fn deed_text<A: fmt::Display>(deed: &Deed<A>) -> String {
    match deed {
        Deed::Act(node, action) => format!("node {node}: {action}"),
        Deed::Fall(node, Fall::Stop) => format!("stop {node}"),
        Deed::Fall(node, Fall::Kill) => format!("kill {node}"),
        Deed::Fall(node, Fall::Power(keep)) => format!("power {node} keep={keep}"),
        Deed::Start(node, None) => format!("start {node}"),
        Deed::Start(node, Some(Continuity::Proven)) => format!("start {node} proven"),
        Deed::Start(node, Some(Continuity::Broken)) => format!("start {node} broken"),
        Deed::BackUp(node) => format!("backup {node}"),
        Deed::Restore(node) => format!("restore {node}"),
        Deed::Clone(from, to) => format!("clone {from} {to}"),
        Deed::LoseTail(node, keep) => format!("lose {node} keep={keep}"),
        Deed::Disk(node, state) => {
            format!("disk {node} {}", disk_text(*state))
        }
        Deed::Pace(node, pace) => format!("pace {node} {}", pace_text(*pace)),
        Deed::Pause(node, true) => format!("pause {node}"),
        Deed::Pause(node, false) => format!("resume {node}"),
        Deed::Clock(node, skew) => format!("clock {node} {}", clock_text(Clock { skew: *skew, drift: 0 })),
        Deed::Cut((first, second), [true, false]) => format!("cut {first}>{second}"),
        Deed::Cut((first, second), [false, true]) => format!("cut {second}>{first}"),
        Deed::Cut(path, _) => format!("cut {}", path_text(*path)),
        Deed::Down(path) => format!("down {}", path_text(*path)),
        Deed::Mend(path) => format!("mend {}", path_text(*path)),
        Deed::Faults(path, faults) => {
            let faults = Faults { ordered: false, ..*faults }.to_string();
            format!("faults {} {faults}", path_text(*path)).trim_end().to_owned()
        }
    }
}

// -------------------------------------------------------------------------------------------- reading

/// Why a text is no plan: the line, and what was expected there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BadPlan {
    line: usize,
    text: String,
    expected: String,
}

impl fmt::Display for BadPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} of the plan, {:?}: expected {}", self.line, self.text, self.expected)
    }
}

impl Error for BadPlan {}

type Read<T> = Result<T, String>;

impl<S, A> FromStr for Plan<S, A>
where
    S: FromStr<Err: fmt::Display>,
    A: FromStr<Err: fmt::Display>,
{
    type Err = BadPlan;

    fn from_str(text: &str) -> Result<Self, BadPlan> {
        let (frames, heal, budget) = (Vec::new(), Duration::ZERO, Budget::default());
        let mut plan = Self { seed: 0, nodes: Vec::new(), paths: Vec::new(), steps: Vec::new(), frames, heal, budget };
        let (mut seeded, mut healed) = (false, false);
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split_once('#').map_or(line, |(line, _)| line).trim();
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            let read = match word {
                "" => Ok(()),
                _ if healed => Err("nothing after the line that heals".to_owned()),
                "seed" if mem::replace(&mut seeded, true) => Err("one seed".to_owned()),
                "seed" => rest.parse().map(|seed| plan.seed = seed).map_err(|_| "a whole number".to_owned()),
                "node" => read_node(rest).map(|node| plan.nodes.push(node)),
                "path" => read_path(rest).map(|path| plan.paths.push(path)),
                "frame" => read_frame(rest).map(|frame| plan.frames.push(frame)),
                "at" => read_step(rest, &plan).map(|step| plan.steps.push(step)),
                "heal" => read_heal(rest, &plan).map(|heal| {
                    (plan.heal, plan.budget) = heal;
                    healed = true;
                }),
                _ => Err("seed, node, path, frame, at or heal".to_owned()),
            };
            let wrong = |()| plan.twice_named().or_else(|| plan.unknown_name()).map_or(Ok(()), Err);
            read.and_then(wrong).map_err(|expected| BadPlan { line: number, text: line.to_owned(), expected })?;
        }
        if !healed {
            let expected = "a last line such as `heal 5s within 180s 400kB`".to_owned();
            return Err(BadPlan { line: text.lines().count().max(1), text: String::new(), expected });
        }
        plan.steps.sort_by_key(|step| step.at);
        Ok(plan)
    }
}

impl<S, A> Plan<S, A> {
    /// What was read last, if it was there before.
    fn twice_named(&self) -> Option<String> {
        if let Some((last, before)) = self.nodes.split_last()
            && before.iter().any(|node| node.name == last.name)
        {
            return Some(format!("each node once, and {} was named before", last.name));
        }
        let (PlannedPath { name: (first, second), .. }, before) = self.paths.split_last()?;
        if first == second {
            return Some("a path between two nodes".to_owned());
        }
        let joins = |path: &PlannedPath| path.name == (*first, *second) || path.name == (*second, *first);
        before.iter().any(joins).then(|| format!("each path once, and {first} and {second} were joined before"))
    }

    /// A name in what was read last that stands for nothing.
    fn unknown_name(&self) -> Option<String> {
        let node = |name: &NodeName| !self.nodes.iter().any(|node| node.name == *name);
        let path = |name: &PathName| !self.paths.iter().any(|path| path.name == *name);
        let (ends, last) = (self.paths.last().map(|path| [path.name.0, path.name.1]), self.steps.last());
        let nodes = ends.into_iter().flatten().chain(last.into_iter().flat_map(|step| step.deed.nodes()));
        let paths =
            last.and_then(|step| step.deed.path()).into_iter().chain(self.frames.last().map(|frame| frame.path));
        let named = |name: NodeName| format!("a node that was named before, and {name} was not");
        nodes.into_iter().find(node).map(named).or_else(|| {
            paths
                .into_iter()
                .find(path)
                .map(|name| format!("a path that was named before, and {} was not", path_text(name)))
        })
    }
}

fn read_name(text: &str) -> Read<NodeName> {
    text.parse().map_err(|_| "the number of a node".to_owned())
}

fn read_path_name(text: &str) -> Read<PathName> {
    let (first, second) = text.split_once('-').ok_or("a path such as 1-0")?;
    Ok((read_name(first)?, read_name(second)?))
}

fn read_time(text: &str) -> Read<Duration> {
    parse_duration(text).ok_or_else(|| crate::text::DURATION.to_owned())
}

fn read_pace(text: &str) -> Read<Pace> {
    let (least, most) = text.split_once("..").unwrap_or((text, text));
    let (least, most) = (read_time(least)?, read_time(most)?);
    if least > most { Err("the shorter time first, such as 1ms..5ms".to_owned()) } else { Ok(Pace { least, most }) }
}

fn read_clock(text: &str) -> Read<Clock> {
    const EXPECTED: &str =
        "how far it is ahead, and perhaps by how many parts in a million it is fast; such as -3600s,+200";
    let (skew, drift) = text.split_once(',').unwrap_or((text, "0"));
    let (negative, skew) = match (skew.strip_prefix('-'), skew.strip_prefix('+')) {
        (Some(skew), _) => (true, skew),
        (None, Some(skew)) => (false, skew),
        (None, None) => return Err(EXPECTED.to_owned()),
    };
    let skew = parse_duration(skew).and_then(|skew| i64::try_from(skew.as_micros()).ok()).ok_or(EXPECTED)?;
    let drift = drift.parse().map_err(|_| EXPECTED)?;
    Ok(Clock { skew: if negative { -skew } else { skew }, drift })
}

fn read_node<S: FromStr<Err: fmt::Display>>(text: &str) -> Read<PlannedNode<S>> {
    let (name, rest) = text.split_once(' ').unwrap_or((text, ""));
    let (mut down, mut clock, mut pace, mut setup) = (false, Clock::default(), Pace::default(), Vec::new());
    for word in rest.split_whitespace() {
        match word.split_once('=') {
            None if word == "down" => down = true,
            Some(("clock", value)) => clock = read_clock(value)?,
            Some(("disk", value)) => pace = read_pace(value)?,
            _ => setup.push(word),
        }
    }
    let setup = setup.join(" ").parse().map_err(|error: S::Err| error.to_string())?;
    Ok(PlannedNode { name: read_name(name)?, down, clock, pace, setup })
}

fn read_path(text: &str) -> Read<PlannedPath> {
    let (name, rest) = text.split_once(' ').unwrap_or((text, ""));
    let (mut transport, mut upstream, mut faults) = (Transport::Reliable, false, Vec::new());
    for word in rest.split_whitespace() {
        match word.split_once('=') {
            None if word == "upstream" => upstream = true,
            Some(("datagram", mtu)) => {
                let mtu = mtu.parse().map_err(|_| "the bytes of the largest datagram, such as datagram=1200")?;
                transport = Transport::Datagram { mtu };
            }
            _ => faults.push(word),
        }
    }
    let faults = read_faults(&faults.join(" "), transport)?;
    Ok(PlannedPath { name: read_path_name(name)?, medium: Medium { faults, transport, upstream } })
}

fn read_faults(text: &str, transport: Transport) -> Read<Faults> {
    let faults: Faults = text.parse().map_err(|error: crate::link::BadFaults| error.to_string())?;
    Ok(Faults { ordered: transport == Transport::Reliable, ..faults })
}

fn read_frame(text: &str) -> Read<PlannedFrame> {
    const EXPECTED: &str =
        "a frame and what is done to it, such as `1-0 17 drop`: drop, duplicate, swap, delay= or flip=";
    let [path, index, tamper] = text.split_whitespace().collect::<Vec<_>>()[..] else {
        return Err(EXPECTED.to_owned());
    };
    let index = index.parse().map_err(|_| EXPECTED)?;
    let tamper = match tamper.split_once('=').unwrap_or((tamper, "")) {
        ("drop", "") => Tamper::Drop,
        ("duplicate", "") => Tamper::Duplicate,
        ("swap", "") => Tamper::Swap,
        ("delay", time) => Tamper::Delay(read_time(time)?),
        ("flip", bit) => Tamper::Flip(bit.parse().map_err(|_| EXPECTED)?),
        _ => return Err(EXPECTED.to_owned()),
    };
    Ok(PlannedFrame { path: read_path_name(path)?, index, tamper })
}

fn read_heal<S, A>(text: &str, plan: &Plan<S, A>) -> Read<(Duration, Budget)> {
    let [at, "within", time, bytes] = text.split_whitespace().collect::<Vec<_>>()[..] else {
        return Err("when, and within what time and bytes: such as `heal 5s within 180s 400kB`".to_owned());
    };
    let bytes = parse_bytes(bytes).ok_or(crate::text::BYTES)?;
    let at = read_time(at)?;
    if let Some(late) = plan.steps.iter().find(|step| step.at > at) {
        return Err(format!("a time not before {}, when there is a step", duration_text(late.at)));
    }
    Ok((at, Budget { time: read_time(time)?, bytes }))
}

fn read_step<S, A: FromStr<Err: fmt::Display>>(text: &str, plan: &Plan<S, A>) -> Read<Step<A>> {
    let (at, deed) = text.split_once(' ').ok_or("a time and a deed")?;
    Ok(Step { at: read_time(at)?, deed: read_deed(deed, plan)? })
}

fn read_deed<S, A: FromStr<Err: fmt::Display>>(text: &str, plan: &Plan<S, A>) -> Read<Deed<A>> {
    const DEEDS: &str = "node N: ACTION, stop N, kill N, power N keep=N/M, start N, backup N, restore N, clone N N, lose N keep=N/M, disk N \
                         STATE, pace N TIME, pause N, resume N, clock N SKEW, cut N-N (or N>N), down N-N, mend N-N or \
                         faults N-N FAULTS";
    let (word, rest) = text.split_once(' ').ok_or(DEEDS)?;
    let (first, second) = rest.split_once(' ').map_or((rest, None), |(first, second)| (first, Some(second)));
    let node = || read_name(first);
    let path = || read_path_name(first);
    Ok(match (word, second) {
        ("node", _) => {
            let (name, action) = rest.split_once(": ").ok_or("an action, such as `node 1: append notes 20B`")?;
            Deed::Act(read_name(name)?, action.parse().map_err(|error: A::Err| error.to_string())?)
        }
        ("stop", None) => Deed::Fall(node()?, Fall::Stop),
        ("kill", None) => Deed::Fall(node()?, Fall::Kill),
        ("power" | "lose", Some(keep)) => {
            let keep = keep.strip_prefix("keep=").and_then(parse_ratio).ok_or("what stays, such as keep=1/2")?;
            if word == "lose" { Deed::LoseTail(node()?, keep) } else { Deed::Fall(node()?, Fall::Power(keep)) }
        }
        ("start", None) => Deed::Start(node()?, None),
        ("start", Some("proven")) => Deed::Start(node()?, Some(Continuity::Proven)),
        ("start", Some("broken")) => Deed::Start(node()?, Some(Continuity::Broken)),
        ("backup", None) => Deed::BackUp(node()?),
        ("restore", None) => Deed::Restore(node()?),
        ("clone", Some(to)) => Deed::Clone(node()?, read_name(to)?),
        ("disk", Some(state)) => {
            let known = DISK_STATES.iter().find(|(name, _)| *name == state);
            Deed::Disk(node()?, known.ok_or("works, stalled, fails, lies or full")?.1)
        }
        ("pace", Some(pace)) => Deed::Pace(node()?, read_pace(pace)?),
        ("pause", None) => Deed::Pause(node()?, true),
        ("resume", None) => Deed::Pause(node()?, false),
        ("clock", Some(clock)) => match read_clock(clock)? {
            Clock { skew, drift: 0 } => Deed::Clock(node()?, skew),
            _ => {
                return Err("how far it is ahead, such as -3600s; how fast it is, is said where the node is".to_owned());
            }
        },
        ("cut", None) => match rest.split_once('>') {
            Some((from, to)) => {
                let (from, to) = (read_name(from)?, read_name(to)?);
                let turned = !plan.paths.iter().any(|path| path.name == (from, to));
                if turned { Deed::Cut((to, from), [false, true]) } else { Deed::Cut((from, to), [true, false]) }
            }
            None => Deed::Cut(path()?, [true; 2]),
        },
        ("down", None) => Deed::Down(path()?),
        ("mend", None) => Deed::Mend(path()?),
        ("faults", faults) => {
            let name = path()?;
            let known = plan.paths.iter().find(|path| path.name == name);
            let transport = known.map_or(Transport::Reliable, |path| path.medium.transport);
            Deed::Faults(name, read_faults(faults.unwrap_or_default(), transport)?)
        }
        _ => return Err(DEEDS.to_owned()),
    })
}
