//! Pictures show all that happens in a run, and change nothing of it.

use std::time::Duration;

use antiphon_report::{Fate, Mark, Picture, Place, Trouble};
use antiphon_sim::laws::{Law, Laws, Scene};
use antiphon_sim::picture::{draw, draw_with};
use antiphon_sim::plan::{PlanOf, Profile, Topology};
use antiphon_sim::replica::WriterNode;
use antiphon_sim::run::{Report, run};
use antiphon_sim::world::Happening;
use antiphon_words::Sign;
use quickcheck::quickcheck;

fn plan(text: &str) -> PlanOf<WriterNode> {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

fn kinds(picture: &Picture, lane: usize, sign: Sign) -> Vec<&str> {
    let marks = picture.marks.iter().filter(|mark| mark.lane == lane && mark.sign == sign);
    marks.map(|mark| mark.kind.as_str()).collect()
}

/// What the world has counted, the picture shows.
fn shows_all(report: &Report, picture: &Picture) -> bool {
    let copies = || picture.frames.iter().flat_map(|frame| &frame.copies);
    let count = |some: &dyn Fn(&&antiphon_report::Copy) -> bool| copies().filter(some).count() as u64;
    let counted = report.frames;
    assert_eq!(picture.frames.len() as u64, counted.sent);
    assert_eq!(copies().count() as u64, counted.sent + counted.duplicated);
    assert_eq!(count(&|copy| copy.held_back), counted.reordered);
    assert_eq!(count(&|copy| copy.damaged), counted.corrupted);
    let arrived = count(&|copy| copy.fate == Fate::Arrived);
    let unheard = count(&|copy| matches!(&copy.fate, Fate::Lost(why) if why.contains("nobody")));
    assert!(arrived + unheard <= counted.delivered, "{arrived} and {unheard} of {}", counted.delivered);
    assert!(count(&|copy| matches!(copy.fate, Fate::Lost(_))) - unheard >= counted.lost);
    let ends = picture.marks.iter().filter(|mark| mark.sign == Sign::End).count() as u64;
    assert!(ends >= report.crashes);
    for frame in &picture.frames {
        assert!(frame.from != frame.to && frame.copies.iter().all(|copy| copy.at >= frame.sent));
        assert_ne!(frame.words.kind, "?", "what replicas send can be read");
    }
    assert!(picture.marks.is_sorted_by_key(|mark| mark.at));
    assert!(picture.spans.iter().all(|span| span.to.is_none_or(|to| to > span.from)));
    true
}

quickcheck! {
    fn a_run_that_is_drawn_is_the_same_run_and_all_of_it(seed: u64) -> bool {
        let profile = Profile { topology: Topology::Ring, documents: 2, partitions: 2, crashes: 2, ..Profile::default() };
        let plan = profile.plan::<WriterNode>(seed);
        let (report, picture) = draw::<WriterNode>(&plan);
        assert_eq!(report, run::<WriterNode>(&plan));
        shows_all(&report, &picture)
    }
}

const TROUBLES: &str = "\
seed 7
node 0 documents=notes
node 1 documents=notes disk=1ms..2ms
node 2 documents=notes down
path 1-0 datagram=1200 latency=20ms
path 2-0 latency=5ms
frame 1-0 0 drop
frame 1-0 3 duplicate
frame 1-0 5 flip=9
at 100ms node 1: append notes 2x20B
at 200ms cut 1>0
at 250ms node 1: append notes 20B
at 300ms down 2-0
at 350ms disk 0 stalled
at 400ms backup 1
at 450ms power 1 keep=0/1
at 500ms restore 1
at 550ms disk 0 works
at 600ms start 1
at 650ms mend 2-0
at 700ms pause 0
at 750ms clock 0 +10s
at 800ms resume 0
at 850ms faults 1-0 latency=20ms loss=1/2
at 900ms start 2
at 950ms mend 1-0
at 1s kill 2
heal 3s within 180s 400kB
";

#[test]
fn troubles_are_marked_where_they_were() {
    let (report, picture) = draw::<WriterNode>(&plan(TROUBLES));
    assert_eq!(report.outcome, Ok(()));
    shows_all(&report, &picture);
    let lanes: Vec<_> = picture.lanes.iter().map(|lane| lane.name.as_str()).collect();
    assert_eq!(lanes, ["node 0", "node 1", "node 2"]);
    let millis = |at: antiphon::Instant| at.as_micros() / 1000;
    let spans: Vec<_> = picture
        .spans
        .iter()
        .map(|span| (millis(span.from), span.to.map(millis), span.place, span.trouble, span.kind.as_str()))
        .collect();
    for expected in [
        (0, Some(900), Place::Lane(2), Trouble::Down, "down"),
        (200, Some(950), Place::Between(1, 0), Trouble::Cut, "cut node 1 → node 0"),
        (300, Some(650), Place::Between(2, 0), Trouble::Cut, "path down"),
        (350, Some(550), Place::Lane(0), Trouble::Disk, "disk stalled"),
        (450, Some(600), Place::Lane(1), Trouble::Down, "down"),
        (700, Some(800), Place::Lane(0), Trouble::Paused, "paused"),
        (850, Some(3000), Place::Between(1, 0), Trouble::Faults, "other faults"),
        (1000, Some(3000), Place::Lane(2), Trouble::Down, "down"),
    ] {
        assert!(spans.contains(&expected), "{expected:?} in {spans:?}");
    }
    assert_eq!(kinds(&picture, 1, Sign::End), ["Power lost"]);
    assert_eq!(kinds(&picture, 2, Sign::End), ["Killed"]);
    assert_eq!(kinds(&picture, 1, Sign::Disk), ["Backed up", "Disk replaced"]);
    assert_eq!(kinds(&picture, 0, Sign::Clock), ["Clock set"]);
    assert_eq!(kinds(&picture, 1, Sign::Start).len(), 2);
    assert!(kinds(&picture, 1, Sign::Timer).len() > 1);
    assert!(kinds(&picture, 0, Sign::Good).contains(&"In step"));
    let moments: Vec<_> = picture.moments.iter().map(|(_, what)| what.as_str()).collect();
    assert_eq!(moments, ["everything heals", "all are in step"]);
}

#[test]
fn frames_are_told_with_the_names_of_their_documents() {
    let profile = Profile { documents: 3, crashes: 2, ..Profile::default() };
    let mut named = 0;
    for seed in 0..10 {
        let (_, picture) = draw::<WriterNode>(&profile.plan::<WriterNode>(seed));
        for frame in
            picture.frames.iter().filter(|frame| matches!(frame.words.kind, "Live" | "Bulk" | "Ack" | "Author"))
        {
            // An Ack that answers an earlier process may have a number that this one has not given.
            named += usize::from(frame.document.is_some());
            assert!(frame.document.is_some() || frame.words.kind == "Ack", "{frame:?}");
        }
        assert!(picture.documents.iter().all(|name| name.starts_with("doc")));
    }
    assert!(named > 100);
}

#[test]
fn what_a_user_did_is_told_once() {
    let (_, picture) = draw::<WriterNode>(&plan(TROUBLES));
    let user = |mark: &&Mark| mark.fields.iter().any(|(name, _)| *name == "user");
    let acted: Vec<_> = picture.marks.iter().filter(user).collect();
    assert_eq!(acted.iter().map(|mark| (mark.lane, mark.kind.as_str())).collect::<Vec<_>>(), [(1, "Append"); 2]);
    assert!(acted.iter().all(|mark| mark.document == Some(0)));
    assert!(acted[0].fields.contains(&("user", "append notes 2x20B".to_owned())));
}

/// Breaks, or panics, when a user has acted for the second time.
struct Twice {
    acted: u32,
    panics: bool,
}

impl Law<WriterNode> for Twice {
    fn name(&self) -> &'static str {
        "twice"
    }

    fn check(&mut self, _: &Scene<'_, WriterNode>, happening: &Happening<WriterNode>) -> Result<(), String> {
        self.acted += u32::from(matches!(happening, Happening::Acted { .. }));
        assert!(!self.panics || self.acted < 2, "the law panics");
        if self.acted < 2 { Ok(()) } else { Err("a user acted again".to_owned()) }
    }
}

#[test]
fn the_moment_at_which_a_law_breaks_is_part_of_the_picture() {
    for panics in [false, true] {
        let laws = Laws::of_nodes().and(Twice { acted: 0, panics });
        let (report, picture) = draw_with::<WriterNode>(&plan(TROUBLES), laws);
        let broken = picture.broken.as_ref().expect("it broke");
        assert_eq!(broken.law, if panics { "panics" } else { "twice" });
        assert_eq!((broken.at, picture.end, report.took), (picture.end, broken.at, Duration::from_millis(250)));
        let last = picture.marks.last().expect("a mark");
        assert_eq!((last.at, last.lane), (broken.at, 1), "what broke it is shown too");
        assert!(picture.moments.is_empty());
    }
}

#[test]
fn a_page_of_two_thousand_events_is_light() {
    let profile = Profile { replicas: 5, documents: 3, ops: 80, ..Profile::default() };
    let (report, picture) = draw::<WriterNode>(&profile.plan::<WriterNode>(5));
    assert!(report.events > 1_800, "{}", report.events);
    let page = picture.page();
    assert!(page.len() < 600_000, "{} bytes for {} events", page.len(), report.events);
    assert_eq!(page, draw::<WriterNode>(&profile.plan::<WriterNode>(5)).1.page(), "it is the same each time");
}
