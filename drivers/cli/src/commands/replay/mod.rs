//! `antiphon replay`: a recording run again, and told.

mod drawing;

use std::path::{Path, PathBuf};
use std::str::FromStr;

use antiphon::op::DocumentId;
use antiphon::replica::LinkId;
use antiphon::{Instant, Replica, Session};
use antiphon_recorder::{End, Error, Event, Header, Line, Outcome, Recordable, Run, Step, Told, Trace};
use antiphon_report::Picture;
use antiphon_sim::run::quiet_panics;
use serde::Serialize;
use tracing::warn;

use super::write_page;
use crate::error::Failure;
use crate::output::Output;
use drawing::Drawing;

#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// The directory of a recording (--record), or one of the files in it
    #[arg(value_name = "TRACE")]
    trace: PathBuf,
    /// Only this recording of those in the directory, by its number
    #[arg(long, value_name = "NUMBER")]
    run: Option<u64>,
    /// The first event that is told: its number, or a time in seconds, like 1.5s
    #[arg(long, value_name = "EVENT")]
    from: Option<Place>,
    /// The event before which the telling ends: its number, or a time
    #[arg(long, value_name = "EVENT")]
    to: Option<Place>,
    /// Tells only what is about this document: NAME, or NAME@BRANCH/SCOPE
    #[arg(long, value_name = "DOC")]
    document: Option<DocumentId>,
    /// Tells only what is about the session on this link, by its number
    #[arg(long, value_name = "LINK")]
    session: Option<u64>,
    /// Tells nothing but how it ends
    #[arg(long, short, conflicts_with_all = ["from", "to", "document", "session"])]
    quiet: bool,
    /// Draws what is told of one recording, with --quiet all of it, as a page to look at
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Where in a recording.
#[derive(Clone, Copy, Debug)]
enum Place {
    Number(u64),
    Time(Instant),
}

impl FromStr for Place {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        const EXPECTED: &str = "the number of an event, like 120, or a time in seconds, like 1.5s";
        let Some(seconds) = text.strip_suffix('s') else {
            return text.parse().map(Self::Number).map_err(|_| EXPECTED);
        };
        let (whole, part) = seconds.split_once('.').unwrap_or((seconds, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(part) || part.len() > 6 {
            return Err(EXPECTED);
        }
        let whole: u64 = whole.parse().map_err(|_| EXPECTED)?;
        let part: u64 = format!("{part:0<6}").parse().map_err(|_| EXPECTED)?;
        let micros = whole.checked_mul(1_000_000).and_then(|micros| micros.checked_add(part)).ok_or(EXPECTED)?;
        Ok(Self::Time(Instant::from_micros(micros)))
    }
}

impl Place {
    /// Whether the event is before it.
    fn is_after(self, number: u64, at: Instant) -> bool {
        match self {
            Self::Number(place) => number < place,
            Self::Time(place) => at < place,
        }
    }
}

/// An event, as a program reads it.
#[derive(Debug, Serialize)]
struct Said {
    run: u64,
    event: u64,
    at_us: u64,
    #[serde(flatten)]
    input: Words,
    /// Bytes of bodies that were left out when it was recorded.
    #[serde(skip_serializing_if = "is_zero")]
    left_out: u64,
    /// What came of it: all, or in a redacted recording the frames sent; nothing where that is not known.
    outputs: Option<Vec<Words>>,
    /// Of what came of it when it was recorded; nothing if it was a panic, or is not known.
    digest: Option<String>,
    differs: bool,
}

#[derive(Debug, Serialize)]
struct Words {
    what: &'static str,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<String>,
    text: String,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl From<&Line> for Words {
    fn from(line: &Line) -> Self {
        Self {
            what: match line.arrow {
                "<-" => "received",
                "->" => "sent",
                "=>" => "wanted",
                _ => "happened",
            },
            kind: line.kind,
            link: line.link.map(|link| link.0),
            document: line.document.as_ref().map(ToString::to_string),
            text: line.text(),
        }
    }
}

/// How a recording came out.
#[derive(Debug, Serialize)]
struct Summary {
    run: u64,
    events: u64,
    /// Whether it was run again.
    replayed: bool,
    /// Why it was not, if not.
    not_replayed: Option<String>,
    /// Events that came to the same.
    same: u64,
    /// The first event that did not.
    differs: Option<Differs>,
    /// How what is there of it ends.
    end: String,
    /// Whether nothing is missing between its first event and that end.
    whole: bool,
}

/// An event that came to something else.
#[derive(Debug, Serialize)]
struct Differs {
    event: u64,
    at_us: u64,
    input: String,
    recorded: String,
    found: String,
}

pub(crate) fn run(arguments: &Arguments, output: &mut Output) -> Result<(), Failure> {
    let path = &arguments.trace;
    let trace = Trace::open(path).map_err(|error| unreadable(path, &error))?;
    let chosen = |run: &&Run| arguments.run.is_none_or(|number| run.header().run == number);
    let runs: Vec<_> = trace.runs.iter().filter(chosen).collect();
    if runs.is_empty() {
        let numbers: Vec<_> = trace.runs.iter().map(|run| run.header().run.to_string()).collect();
        let error = format!("{} has no recording {}", path.display(), arguments.run.unwrap_or_default());
        return Err(Failure::usage(error, format!("name one that it has: {}", numbers.join(", "))));
    }
    let of_session = |run: &&&Run| run.header().machine == Session::NAME;
    if let Some(other) = runs.iter().find(|run| !of_session(run) && run.header().machine != Replica::NAME) {
        let what = format!("{:?}, not of a replica or a session", other.header().machine);
        let error = format!("{} is a recording of a {what}", path.display());
        return Err(Failure::new("trace_foreign", error, "replay it with the program that recorded it"));
    }
    let of_links = arguments.html.as_ref().map(|_| "--html").or(arguments.session.map(|_| "--session"));
    if let (Some(flag), Some(_)) = (of_links, runs.iter().find(of_session)) {
        let error =
            format!("{} is a recording of a session by itself, which has no links to tell apart", path.display());
        return Err(Failure::usage(error, format!("leave out {flag}")));
    }
    if arguments.html.is_some() && runs.len() > 1 {
        let numbers: Vec<_> = runs.iter().map(|run| run.header().run.to_string()).collect();
        let error = format!("{} has several recordings, and a page shows one", path.display());
        return Err(Failure::usage(error, format!("name one by --run: {}", numbers.join(", "))));
    }
    quiet_panics(); // a panic that is run again is told like anything else
    let mut failure = None;
    trace.skipped.iter().for_each(|(name, error)| warn!("{name}: {error}; it is left out"));
    for run in runs {
        let drawing = arguments.html.is_some().then(|| drawing(arguments, run));
        let telling = Telling { arguments, run, output, drawing, told: 0 };
        let summary = if of_session(&&run) { telling.tell::<Session>()? } else { telling.tell::<Replica>()? };
        failure = failure.or_else(|| summary.failure(path, &run.header().version));
    }
    failure.map_or(Ok(()), Err)
}

fn unreadable(path: &Path, error: &Error) -> Failure {
    let told = format!("{}: {error}", path.display());
    match error {
        Error::Unreadable(_) => Failure::new(
            "trace_inaccessible",
            told,
            "give the directory of --record, or a file in it, that can be read",
        ),
        Error::Empty => Failure::new("trace_missing", told, "give the directory that was given to --record"),
        Error::Foreign => Failure::new("trace_foreign", told, "give the directory of --record, or a .trace file in it"),
        Error::Format(_) => {
            Failure::new("trace_format", told, "replay it with the version of antiphon that recorded it")
        }
        Error::Header => Failure::new("trace_damaged", told, "copy it again, or give another file of the recording"),
    }
}

/// An empty picture of a recording.
fn drawing(arguments: &Arguments, run: &Run) -> Drawing {
    let (shown, number) = (arguments.trace.display(), run.header().run);
    Drawing::new(format!("recording {number} of {shown}"), format!("antiphon replay {shown} --run {number}"))
}

/// One recording that is told.
struct Telling<'a> {
    arguments: &'a Arguments,
    run: &'a Run,
    output: &'a mut Output,
    drawing: Option<Drawing>,
    /// Events that were wanted.
    told: u64,
}

impl Telling<'_> {
    fn tell<M: Told>(mut self) -> Result<Summary, Failure> {
        let header = self.run.header();
        if !self.output.is_json() {
            let began = date(header.began);
            let (run, version) = (header.run, &header.version);
            self.output.line(format!("recording {run} of a {}: by antiphon {version}, begun {began}", M::NAME))?;
        }
        let mut transcript = M::transcript(self.run);
        let mut summary = Summary {
            run: header.run,
            events: 0,
            replayed: false,
            not_replayed: None,
            same: 0,
            differs: None,
            end: String::new(),
            whole: true,
        };
        let mut rest = match self.run.replay::<M>() {
            Ok(mut replay) => {
                summary.replayed = true;
                for step in replay.by_ref() {
                    let differs = step.differs();
                    summary.note(&step, &transcript);
                    self.event::<M>(&mut transcript, &step.event, Some(&step.outputs).filter(|_| !differs), differs)?;
                }
                replay.into_events()
            }
            Err(reason) => {
                summary.not_replayed = Some(reason.to_string());
                self.run.events()
            }
        };
        for mut event in rest.by_ref() {
            summary.events += 1;
            // What was sent is in a trace that was redacted.
            let sent: Vec<_> = std::mem::take(&mut event.kept).into_iter().map(Into::into).collect();
            self.event::<M>(&mut transcript, &event, Some(&sent).filter(|_| header.redacted), false)?;
        }
        if let Some(end) = rest.end() {
            (summary.end, summary.whole) = (end.to_string(), End::is_whole(end));
        }
        if self.told == 0 && summary.events > 0 && !self.arguments.quiet && self.drawing.is_none() {
            warn!("none of the {} events is what --from, --to, --document and --session ask for", summary.events);
        }
        if let (Some(drawing), Some(file)) = (self.drawing.take(), &self.arguments.html) {
            write_page("--html", file, &summary.drawn(drawing, header))?;
        }
        if self.output.is_json() {
            self.output.object(&summary)?
        } else {
            self.output.line(summary.text())?
        }
        Ok(summary)
    }

    /// Tells an event, if it is wanted.
    fn event<M: Told>(
        &mut self,
        transcript: &mut M::Transcript,
        event: &Event<M::Input, M::Kept>,
        outputs: Option<&Vec<M::Output>>,
        differs: bool,
    ) -> Result<(), Failure> {
        if self.arguments.quiet && self.drawing.is_none() {
            return Ok(());
        }
        // All of them are gone through, wanted or not: names are learned from them.
        let input = M::tell_input(transcript, &event.input);
        let outputs =
            outputs.map(|outputs| outputs.iter().map(|output| M::tell_output(transcript, output)).collect::<Vec<_>>());
        let Arguments { from, to, document, session, .. } = self.arguments;
        let early = from.is_some_and(|from| from.is_after(event.number, event.at));
        let late = to.is_some_and(|to| !to.is_after(event.number, event.at));
        let wanted = |line: &&Line| {
            (document.is_none() || line.document == *document)
                && session.is_none_or(|session| line.link == Some(LinkId(session)))
        };
        let about: Option<Vec<_>> = outputs.as_ref().map(|outputs| outputs.iter().filter(wanted).collect());
        if early || late || !(differs || wanted(&&input) || about.as_ref().is_some_and(|about| !about.is_empty())) {
            return Ok(());
        }
        self.told += 1;
        if let Some(drawing) = &mut self.drawing {
            let lines = Some(&input).filter(wanted).into_iter().chain(about.iter().flatten().copied());
            lines.for_each(|line| drawing.add(event.at, line.clone()));
        }
        if self.arguments.quiet {
            return Ok(());
        }
        if self.output.is_json() {
            return self.output.object(&Said {
                run: self.run.header().run,
                event: event.number,
                at_us: event.at.as_micros(),
                input: Words::from(&input),
                left_out: event.left_out,
                outputs: about.map(|about| about.into_iter().map(Words::from).collect()),
                digest: match event.outcome {
                    Outcome::Digest(digest) if !self.run.header().redacted => Some(format!("{digest:016x}")),
                    Outcome::Digest(_) | Outcome::Panicked => None,
                },
                differs,
            });
        }
        let mut text = input.to_string();
        if event.left_out > 0 {
            text += &format!(" ({} bytes left out)", event.left_out);
        }
        text += if differs { "  <== DIFFERS" } else { "" };
        text += if event.outcome == Outcome::Panicked { "  <== PANICS" } else { "" };
        self.output.line(format!("{:>8} {:>14} {text}", event.number, event.at.to_string()))?;
        about.into_iter().flatten().try_for_each(|line| self.output.line(format!("{:>24}{line}", "")))
    }
}

impl Summary {
    /// One more event was run again.
    fn note<M: Told>(&mut self, step: &Step<M>, transcript: &M::Transcript) {
        self.events += 1;
        if !step.differs() {
            self.same += 1;
            return;
        }
        let text = |outcome| match outcome {
            Outcome::Digest(digest) => format!("{digest:016x}"),
            Outcome::Panicked => String::from("a panic"),
        };
        self.differs = Some(Differs {
            event: step.event.number,
            at_us: step.event.at.as_micros(),
            input: M::tell_input(&mut transcript.clone(), &step.event.input).to_string().trim().to_owned(),
            recorded: text(step.event.outcome),
            found: text(step.outcome),
        });
    }

    fn text(&self) -> String {
        let Self { run, events, end, .. } = self;
        let replayed = match (&self.not_replayed, &self.differs) {
            (Some(reason), _) => format!("told, but not replayed: {reason}"),
            (None, None) => String::from("replayed, and each came to the same"),
            (None, Some(Differs { event, .. })) => format!("replayed; event {event} is the first that differs"),
        };
        format!("recording {run}: {events} events, {replayed}; {end}")
    }

    /// The picture of what was told.
    fn drawn(&self, mut drawing: Drawing, header: &Header) -> Picture {
        if let Some(Differs { event, at_us, input, recorded, found }) = &self.differs {
            let what = format!("event {event}, {input}, came to {recorded} then, and to {found} now");
            drawing.differs(Instant::from_micros(*at_us), what);
        }
        let facts = [("recorded by", format!("antiphon {}", header.version)), ("begun", date(header.began))];
        drawing.finish(self.text(), facts.map(|(name, what)| (name.to_owned(), what)).into())
    }

    fn failure(&self, path: &Path, version: &str) -> Option<Failure> {
        let (run, path) = (self.run, path.display());
        if let Some(Differs { event, at_us, input, recorded, found }) = &self.differs {
            let at = Instant::from_micros(*at_us);
            let error = format!(
                "recording {run} of {path} differs first at event {event}, at {at}: {input} came to {recorded} then, and to {found} now"
            );
            let remedy = if version == env!("CARGO_PKG_VERSION") {
                String::from("if it was recorded by this very program, report it with the recording")
            } else {
                format!("it was recorded by antiphon {version}: replay it with that version")
            };
            return Some(Failure::new("replay_differs", error, remedy));
        }
        let remedy = "copy it again if there is another; what is before that was read";
        (!self.whole).then(|| Failure::new("trace_damaged", format!("recording {run} of {path}: {}", self.end), remedy))
    }
}

/// A moment by the wall clock, in UTC.
fn date(millis: u64) -> String {
    let (days, seconds) = ((millis / 86_400_000) as i64, millis / 1000 % 86_400);
    // Civil from days, after Howard Hinnant: years begin in March.
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = year + era * 400 + i64::from(month <= 2);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hours:02}:{minutes:02}:{seconds:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (millis, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399_999, "2000-02-28 23:59:59 UTC"),
            (951_782_400_000, "2000-02-29 00:00:00 UTC"),
            (1_709_251_199_000, "2024-02-29 23:59:59 UTC"),
            (1_735_689_600_000, "2025-01-01 00:00:00 UTC"),
        ] {
            assert_eq!(date(millis), text);
        }
    }

    #[test]
    fn places_are_numbers_or_times() {
        assert!(matches!("120".parse(), Ok(Place::Number(120))));
        assert!(matches!("1.5s".parse(), Ok(Place::Time(at)) if at == Instant::from_millis(1500)));
        assert!(matches!("3s".parse(), Ok(Place::Time(at)) if at == Instant::from_millis(3000)));
        for wrong in ["", "s", "1.s", ".5s", "1.5", "-1", "1.1234567s", "99999999999999999999s"] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
    }
}
