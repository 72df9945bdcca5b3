//! Explores the built-in models and tells what was seen: a table, or JSON line by line.
//!
//! Exit codes: 0 no law was found broken, 1 one was, 2 the command line is wrong.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use antiphon_check::{Case, Limits, Report, Violation, catalogue};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

/// Explores every interleaving of small networks of replicas, in which everything may go wrong at any moment.
#[derive(Debug, Parser)]
#[command(name = "antiphon-check", version, max_term_width = 100)]
struct Arguments {
    /// Only models of this kind (sessions, datagram, pair, chain), or one of them (sessions/cut)
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// The most distinct states of each model
    #[arg(long, value_name = "N", default_value_t = 250_000, value_parser = clap::value_parser!(u32).range(1..))]
    states: u32,
    /// Tell each model as an object on a line of its own, and the sum as the last
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let chosen = |case: &Case| match arguments.model.as_deref() {
        None => true,
        Some(model) => model == case.model || model == format!("{}/{}", case.model, case.name),
    };
    let cases: Vec<_> = catalogue().into_iter().filter(chosen).collect();
    if cases.is_empty() {
        let names: Vec<_> = catalogue().iter().map(|case| format!("{}/{}", case.model, case.name)).collect();
        eprintln!("there is no such model: choose sessions, datagram, pair, chain, or one of {}", names.join(", "));
        return ExitCode::from(2);
    }
    match tell(&cases, &arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("stdout can't be written: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Explores the models one after the other, and says whether all laws held.
fn tell(cases: &[Case], arguments: &Arguments) -> io::Result<bool> {
    let limits = Limits { states: arguments.states as usize, ..Limits::default() };
    let (mut all, mut seconds, mut broken) = (Report::default(), 0.0, Vec::new());
    let mut out = io::stdout().lock();
    if !arguments.json {
        writeln!(
            out,
            "{:<22} {:>9} {:>11} {:>9} {:>6} {:>8}",
            "model", "states", "transitions", "settling", "depth", "seconds"
        )?;
    }
    for case in cases {
        let (name, start) = (format!("{}/{}", case.model, case.name), Instant::now());
        let bar = progress_bar(&name, arguments);
        let result = case.explore(&limits, &mut |report| bar.set_position(report.states as u64));
        bar.finish_and_clear();
        let took = start.elapsed().as_secs_f64();
        seconds += took;
        match result {
            Ok(report) => {
                all.add(&report);
                line(&mut out, arguments.json, &name, &report, took)?;
            }
            Err(violation) => {
                let Violation { broken: law, path, chosen } = &*violation;
                if arguments.json {
                    let detail = &law.detail;
                    let object =
                        json!({"model": name, "law": law.law, "detail": detail, "path": path, "chosen": chosen});
                    writeln!(out, "{object}")?;
                } else {
                    writeln!(out, "{name:<22} broken: {}", law.law)?;
                }
                broken.push((name, violation));
            }
        }
    }
    line(&mut out, arguments.json, "all", &all, seconds)?;
    for (name, violation) in &broken {
        eprintln!("\n{name}: {violation}");
    }
    Ok(broken.is_empty())
}

fn line(out: &mut impl Write, json: bool, name: &str, report: &Report, seconds: f64) -> io::Result<()> {
    let Report { states, transitions, depth, settling, complete } = *report;
    if json {
        let object = json!({
            "model": name, "states": states, "transitions": transitions, "settling": settling, "depth": depth,
            "complete": complete, "seconds": (seconds * 1000.0).round() / 1000.0,
        });
        return writeln!(out, "{object}");
    }
    let more = if complete { "" } else { "  and more" };
    writeln!(out, "{name:<22} {states:>9} {transitions:>11} {settling:>9} {depth:>6} {seconds:>8.1}{more}")
}

fn progress_bar(name: &str, arguments: &Arguments) -> ProgressBar {
    let bar = if arguments.json { ProgressBar::hidden() } else { ProgressBar::new(arguments.states.into()) };
    let style = ProgressStyle::with_template("{msg:22} {wide_bar} {human_pos} states, {per_sec}, {elapsed}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_message(name.to_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
