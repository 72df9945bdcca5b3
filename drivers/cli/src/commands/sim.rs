//! `antiphon sim`: replicas in a simulated world, with or without stores on them, a plan a seed, and the laws that must
//! hold.

use std::fmt::{Display, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Instant;

use antiphon::rng::Ratio;
use antiphon_sim::campaign::{Summary, campaign};
use antiphon_sim::laws::Violation;
use antiphon_sim::picture::draw;
use antiphon_sim::plan::{Plan, PlanOf, Profile, Topology, Workload, shrink};
use antiphon_sim::replica::WriterNode;
use antiphon_sim::run::{quiet_panics, run};
use antiphon_sim::stores::StoreNode;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::write_page;
use crate::error::Failure;
use crate::output::{Align, Output, Table};

/// How many failures are told with their plans.
const PLANS_MAX: usize = 3;
/// How many plans are run to make one smaller.
const SHRINK_RUNS_MAX: usize = 10_000;

#[derive(clap::Args, Debug)]
#[command(group = clap::ArgGroup::new("one").args(["seed", "plan"]))]
pub(crate) struct Arguments {
    /// Runs the plan of one seed
    #[arg(long, value_name = "NUMBER", conflicts_with = "seeds", value_parser = clap::value_parser!(u64).range(..u64::MAX))]
    seed: Option<u64>,
    /// Runs the plans of the seeds from A to before B [default: 0..1000]
    #[arg(long, value_name = "A..B")]
    seeds: Option<Seeds>,
    /// Puts stores on the replicas: their users do transactions, and what stores hold and tell is judged too. A plan of such
    /// replicas (--plan) is run with this flag
    #[arg(long)]
    stores: bool,
    /// Replicas in each plan
    #[arg(long, value_name = "NUMBER", default_value_t = Profile::default().replicas, value_parser = clap::value_parser!(u32).range(1..=1000))]
    replicas: u32,
    /// Documents that each replica has open
    #[arg(long, value_name = "NUMBER", default_value_t = Profile::default().documents, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    documents: u32,
    /// Ops that are drawn for each plan; one for a replica that is down is not written
    #[arg(long, value_name = "NUMBER", default_value_t = Profile::default().ops)]
    ops: u32,
    /// Who is joined with whom: pair, star, chain, ring, mesh or tree
    #[arg(long, value_name = "TOPOLOGY", default_value_t = Profile::default().topology)]
    topology: Topology,
    /// How many frames are lost
    #[arg(long, value_name = "N/M", default_value_t = Profile::default().loss)]
    loss: Ratio,
    /// How many frames arrive twice
    #[arg(long, value_name = "N/M", default_value_t = Profile::default().duplicate)]
    duplicate: Ratio,
    /// How many frames are overtaken by others
    #[arg(long, value_name = "N/M", default_value_t = Profile::default().reorder)]
    reorder: Ratio,
    /// How many frames are damaged
    #[arg(long, value_name = "N/M", default_value_t = Profile::default().corrupt)]
    corrupt: Ratio,
    /// How often paths are cut in each plan
    #[arg(long, value_name = "NUMBER", default_value_t = Profile::default().partitions)]
    partitions: u32,
    /// How often replicas go down in each plan; one that is down already stays so
    #[arg(long, value_name = "NUMBER", default_value_t = Profile::default().crashes)]
    crashes: u32,
    /// Draws for each seed how many replicas, documents, ops, partitions and crashes there are, who is joined with whom, and
    /// how many frames are lost, duplicated, reordered and corrupted
    #[arg(long, conflicts_with_all = ["replicas", "documents", "ops", "topology", "loss", "duplicate", "reorder", "corrupt",
        "partitions", "crashes"])]
    varied: bool,
    /// Threads; they change nothing but the time [default: as many as there are processors]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    /// Runs the plan in this file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seed", "seeds", "replicas", "documents", "ops", "topology",
        "loss", "duplicate", "reorder", "corrupt", "partitions", "crashes", "varied"])]
    plan: Option<PathBuf>,
    /// Prints the plan (--seed or --plan) as text, and runs nothing
    #[arg(long, requires = "one", conflicts_with_all = ["shrink", "report", "complete", "jobs"])]
    print: bool,
    /// Makes plans that break a law as small as it can
    #[arg(long)]
    shrink: bool,
    /// Draws the run of one plan (--seed or --plan) as a page to look at; with --shrink, of the plan made small
    #[arg(long, value_name = "FILE", requires = "one")]
    report: Option<PathBuf>,
    /// Fails if something was never reached that replicas can come to
    #[arg(long)]
    complete: bool,
}

/// The seeds from one to before another.
#[derive(Clone, Debug)]
struct Seeds(Range<u64>);

impl FromStr for Seeds {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        const EXPECTED: &str = "two whole numbers, the lower first, such as 0..1000";
        let (from, to) = text.split_once("..").ok_or(EXPECTED)?;
        let (from, to) = (from.parse().map_err(|_| EXPECTED)?, to.parse().map_err(|_| EXPECTED)?);
        if from < to { Ok(Self(from..to)) } else { Err(EXPECTED) }
    }
}

/// The result.
#[derive(Debug, Serialize)]
struct Outcome {
    seeds: u64,
    failed: Vec<Failed>,
    converged: u64,
    events: u64,
    ops: u64,
    frames_sent: u64,
    frames_dropped: u64,
    frames_duplicated: u64,
    frames_reordered: u64,
    frames_corrupted: u64,
    crashes: u64,
    /// What no plan came to.
    not_reached: Vec<&'static str>,
    trace_hash: String,
    seeds_per_second: f64,
}

/// A plan that is shown.
#[derive(Debug, Serialize)]
struct Printed {
    plan: String,
}

/// A plan that broke a law.
#[derive(Debug, Serialize)]
struct Failed {
    seed: Option<u64>,
    law: &'static str,
    what: String,
    /// As text; not of all, where there are many.
    plan: Option<String>,
    command: String,
}

pub(crate) fn run_command(arguments: &Arguments, output: &mut Output) -> Result<(), Failure> {
    if arguments.stores { run_of::<StoreNode>(arguments, output) } else { run_of::<WriterNode>(arguments, output) }
}

fn run_of<N: Workload>(arguments: &Arguments, output: &mut Output) -> Result<(), Failure> {
    if arguments.print {
        return print(&planned::<N>(arguments)?, output);
    }
    quiet_panics();
    let begun = Instant::now();
    let (summary, failed) = match &arguments.plan {
        Some(file) => run_file::<N>(arguments, file)?,
        None => run_seeds::<N>(arguments, output.is_json()),
    };
    if let Some(file) = &arguments.report {
        report::<N>(arguments, failed.first(), file)?;
    }
    let seconds = begun.elapsed().as_secs_f64().max(1e-6);
    let failures = failed.len();
    let command = failed.first().map(|failed| failed.command.clone());
    let outcome = Outcome {
        seeds: summary.seeds,
        converged: summary.seeds - failures as u64,
        failed,
        events: summary.events,
        ops: summary.ops,
        frames_sent: summary.frames.sent,
        frames_dropped: summary.frames.lost,
        frames_duplicated: summary.frames.duplicated,
        frames_reordered: summary.frames.reordered,
        frames_corrupted: summary.frames.corrupted,
        crashes: summary.crashes,
        not_reached: summary.coverage.holes(),
        trace_hash: format!("{:016x}", summary.trace_hash),
        seeds_per_second: (summary.seeds as f64 / seconds * 10.0).round() / 10.0,
    };
    if output.is_json() {
        output.object(&outcome)?
    } else {
        outcome.tell(output)?
    }
    match command {
        Some(command) => {
            let error = format!("{failures} of {} plans broke a law", outcome.seeds);
            Err(Failure::new("law_broken", error, format!("see it again with: {command}")))
        }
        None if arguments.complete && !outcome.not_reached.is_empty() => {
            let error = format!("{} plans never came to: {}", outcome.seeds, outcome.not_reached.join("; "));
            Err(Failure::new(
                "not_reached",
                error,
                "run more seeds, or plans with more documents, crashes or partitions",
            ))
        }
        None => Ok(()),
    }
}

// -------------------------------------------------------------------------------------------- one plan

fn read_plan<N: Workload>(arguments: &Arguments, file: &Path) -> Result<PlanOf<N>, Failure> {
    let shown = file.display();
    let bytes = std::fs::read(file).map_err(|error| {
        Failure::new("plan", format!("the plan {shown} can't be read: {error}"), "give --plan a file that can be read")
    })?;
    let no_plan = |error: &dyn Display| {
        let see = format!("see one: `{} --seed 0 --print`", command(arguments));
        Failure::usage(format!("{shown} is no plan: {error}"), see)
    };
    let text = String::from_utf8(bytes).map_err(|_| no_plan(&"it is not text"))?;
    text.parse().map_err(|error| no_plan(&error))
}

/// The one plan that is asked for.
fn planned<N: Workload>(arguments: &Arguments) -> Result<PlanOf<N>, Failure> {
    match (&arguments.plan, arguments.seed.unwrap_or_default()) {
        (Some(file), _) => read_plan::<N>(arguments, file),
        (None, seed) => Ok(profile(arguments, seed).plan::<N>(seed)),
    }
}

fn print<S: Display, A: Display>(plan: &Plan<S, A>, output: &mut Output) -> Result<(), Failure> {
    let text = plan.to_string();
    if output.is_json() { output.object(&Printed { plan: text }) } else { output.line(text.trim_end()) }
}

/// The command, with what says which nodes there are.
fn command(arguments: &Arguments) -> &'static str {
    if arguments.stores { "antiphon sim --stores" } else { "antiphon sim" }
}

/// The command that runs the plan in this file, for a shell.
fn command_of(arguments: &Arguments, file: &Path) -> String {
    let name = file.display().to_string();
    let plain = |letter: char| letter.is_alphanumeric() || "/._-+:,@%".contains(letter);
    let plain = !name.is_empty() && name.chars().all(plain);
    let word = if plain { name } else { format!("'{}'", name.replace('\'', r"'\''")) };
    format!("{} --plan {word}", command(arguments))
}

fn run_file<N: Workload>(arguments: &Arguments, file: &Path) -> Result<(Summary, Vec<Failed>), Failure> {
    let plan = read_plan::<N>(arguments, file)?;
    let mut summary = Summary::default();
    summary.add(0, run::<N>(&plan));
    let command = command_of(arguments, file);
    let failed = summary.failed.iter();
    let failed = failed.map(|(_, violation)| failure::<N>(None, violation, &plan, arguments.shrink, command.clone()));
    let failed = failed.collect();
    Ok((summary, failed))
}

/// What is told of a plan that broke a law.
fn failure<N: Workload>(
    seed: Option<u64>,
    violation: &Violation,
    plan: &PlanOf<N>,
    shrinks: bool,
    command: String,
) -> Failed {
    let smaller = if shrinks { shrink::<N>(plan, SHRINK_RUNS_MAX) } else { None };
    let (violation, plan) = match &smaller {
        Some(smaller) => (&smaller.violation, &smaller.plan),
        None => (violation, plan),
    };
    Failed { seed, law: violation.law, what: violation.what.clone(), plan: Some(plan.to_string()), command }
}

/// Draws the one plan that was run, or what was made of it.
fn report<N: Workload>(arguments: &Arguments, failed: Option<&Failed>, file: &Path) -> Result<(), Failure> {
    let planned = planned::<N>(arguments)?;
    let (title, mut command) = match (&arguments.plan, arguments.seed.unwrap_or_default()) {
        (Some(file), _) => (format!("the plan {}", file.display()), command_of(arguments, file)),
        (None, seed) => (format!("seed {seed}"), command_of_seed(arguments, seed)),
    };
    // What is printed is what is read.
    let small = failed.and_then(|failed| failed.plan.as_ref()?.parse().ok());
    let plan: &PlanOf<N> = small.as_ref().unwrap_or(&planned);
    let (_, mut picture) = draw::<N>(plan);
    picture.title = title;
    if *plan != planned {
        picture.title.push_str(", made small");
        command.push_str(" --shrink");
    }
    picture.command = Some(command);
    write_page("--report", file, &picture)
}

// -------------------------------------------------------------------------------------------- seeds

fn run_seeds<N: Workload>(arguments: &Arguments, is_json: bool) -> (Summary, Vec<Failed>) {
    let seeds = match (arguments.seed, &arguments.seeds) {
        (Some(seed), _) => seed..seed.saturating_add(1),
        (None, Some(Seeds(seeds))) => seeds.clone(),
        (None, None) => 0..1000,
    };
    let jobs = arguments.jobs.map(usize::from);
    let jobs = jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let bar = progress(seeds.end - seeds.start, is_json);
    let summary = campaign::<N>(|seed| profile(arguments, seed), seeds, jobs, |seeds| bar.inc(seeds));
    bar.finish_and_clear();
    let failed = summary.failed.iter().enumerate().map(|(index, (seed, violation))| {
        let command = command_of_seed(arguments, *seed);
        match index < PLANS_MAX {
            true => {
                let plan = profile(arguments, *seed).plan::<N>(*seed);
                failure::<N>(Some(*seed), violation, &plan, arguments.shrink, command)
            }
            false => {
                Failed { seed: Some(*seed), law: violation.law, what: violation.what.clone(), plan: None, command }
            }
        }
    });
    let failed = failed.collect();
    (summary, failed)
}

fn profile(arguments: &Arguments, seed: u64) -> Profile {
    if arguments.varied {
        return Profile::varied(seed);
    }
    Profile {
        replicas: arguments.replicas,
        documents: arguments.documents,
        ops: arguments.ops,
        topology: arguments.topology,
        loss: arguments.loss,
        duplicate: arguments.duplicate,
        reorder: arguments.reorder,
        corrupt: arguments.corrupt,
        partitions: arguments.partitions,
        crashes: arguments.crashes,
    }
}

/// The command that runs the plan of a seed.
fn command_of_seed(arguments: &Arguments, seed: u64) -> String {
    format!("{} --seed {seed}{}", command(arguments), flags(&profile(arguments, seed)))
}

/// What must be said to get the plans of a profile, beside the seed.
fn flags(profile: &Profile) -> String {
    let usual = Profile::default();
    let mut flags = String::new();
    macro_rules! flag {
        ($($field:ident)*) => {$(
            if profile.$field != usual.$field {
                let _ = write!(flags, " --{} {}", stringify!($field), profile.$field);
            }
        )*};
    }
    flag!(replicas documents ops topology loss duplicate reorder corrupt partitions crashes);
    flags
}

fn progress(seeds: u64, is_json: bool) -> ProgressBar {
    let target = if is_json || seeds == 1 { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(Some(seeds), target);
    let style = ProgressStyle::with_template("{wide_bar} {human_pos} of {human_len} seeds, {per_sec}, {eta} to go");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

// -------------------------------------------------------------------------------------------- telling

impl Outcome {
    fn tell(&self, output: &mut Output) -> Result<(), Failure> {
        for Failed { seed, law, what, plan, command } in &self.failed {
            let whose = seed.map_or_else(|| String::from("the plan"), |seed| format!("seed {seed}"));
            output.line(format!("{whose} broke the law {law:?}: {what}"))?;
            output.line(format!("see it again with: {command}"))?;
            if let Some(plan) = plan {
                output.line("")?;
                output.line(plan)?;
            }
        }
        let mut table = Table::new([("", Align::Left), ("", Align::Right)]);
        table.row([&"plans run", &self.seeds]);
        table.row([&"in step at the end", &self.converged]);
        table.row([&"broke a law", &self.failed.len()]);
        table.row([&"ops written", &self.ops]);
        table.row([&"events", &self.events]);
        table.row([&"frames sent", &self.frames_sent]);
        table.row([&"  dropped", &self.frames_dropped]);
        table.row([&"  duplicated", &self.frames_duplicated]);
        table.row([&"  reordered", &self.frames_reordered]);
        table.row([&"  corrupted", &self.frames_corrupted]);
        table.row([&"crashes", &self.crashes]);
        table.row([&"trace hash", &self.trace_hash]);
        table.row([&"seeds a second", &self.seeds_per_second]);
        output.table(&table)?;
        // One plan comes to a few things only.
        if self.seeds > 1 && !self.not_reached.is_empty() {
            output.line(format!("\nnot reached: {}", self.not_reached.join("; ")))?;
        }
        Ok(())
    }
}
