//! The page: a picture as one file of HTML that needs nothing else.
//!
//! Everything that was in the run is in one JSON object, in which no `<` stands, so that nothing can end the element
//! that holds it; the script puts texts on the page as texts. A policy in its head forbids it to load anything.

use std::borrow::Cow;
use std::collections::BTreeMap;

use antiphon::Instant;
use antiphon_words::{Family, Field, Named};
use serde::Serialize;

use crate::picture::{Broken, Fate, Frame, Mark, Picture, Place, Span};

const TEMPLATE: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: [&str; 5] = [
    include_str!("page/data.js"),
    include_str!("page/layout.js"),
    include_str!("page/draw.js"),
    include_str!("page/details.js"),
    include_str!("page/controls.js"),
];

/// The largest whole number that a page's script counts in without rounding.
const MICROS_MAX: u64 = (1 << 53) - 1;

impl Picture {
    /// The page. It is the same for the same picture.
    pub fn page(&self) -> String {
        let mut page = String::new();
        let mut rest = TEMPLATE;
        // Not by replacing text in text: data that looks like a place for other data stays data.
        while let Some((before, (name, after))) =
            rest.split_once("{{").and_then(|(before, after)| Some((before, after.split_once("}}")?)))
        {
            page.push_str(before);
            match name {
                "style" => page.push_str(STYLE),
                "script" => SCRIPT.iter().for_each(|part| page.push_str(part)),
                _ => page.push_str(&self.data()),
            }
            rest = after;
        }
        page.push_str(rest);
        page
    }

    /// The picture as JSON that can stand in a script element.
    fn data(&self) -> String {
        let json =
            serde_json::to_string(&Data::of(self)).unwrap_or_else(|error| unreachable!("no map, no IO: {error}"));
        // These stand in JSON in strings only, and mean the same there.
        json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
    }
}

/// What the script reads: times are microseconds, texts are places in `strings`, -1 is nothing, and signs and troubles are
/// numbers in the order of their declaration.
#[derive(Serialize)]
struct Data<'a> {
    title: &'a str,
    facts: &'a [(String, String)],
    command: Option<&'a str>,
    documents: &'a [String],
    plans: &'a [(String, String)],
    verdict: &'a str,
    broken: Option<(&'a str, &'a str, u64)>,
    lanes: Vec<(&'a str, &'a str)>,
    end: u64,
    moments: Vec<(u64, &'a str)>,
    strings: Vec<Cow<'a, str>>,
    frames: Vec<FrameRow>,
    marks: Vec<MarkRow>,
    spans: Vec<SpanRow>,
}

/// From, to, when, kind, family, document, fields, copies.
type FrameRow = (usize, usize, u64, usize, usize, i64, Vec<usize>, Vec<CopyRow>);
/// When, fate (0 arrived, 1 lost, 2 under way), held back, damaged, reason.
type CopyRow = (u64, u8, u8, u8, i64);
/// When, lane, sign, kind, document, fields.
type MarkRow = (u64, usize, usize, usize, i64, Vec<usize>);
/// From, to, lane, other lane, trouble, kind, fields.
type SpanRow = (u64, i64, usize, i64, usize, usize, Vec<usize>);

impl<'a> Data<'a> {
    fn of(picture: &'a Picture) -> Self {
        let mut strings = Strings::default();
        let lanes = picture.lanes.len();
        let document = |document: Option<usize>| {
            document.filter(|place| *place < picture.documents.len()).map_or(-1, |place| place as i64)
        };
        let frames = picture.frames.iter().filter(|frame| frame.from < lanes && frame.to < lanes);
        let frames = frames.map(|frame| frame_row(&mut strings, frame, document(frame.document))).collect();
        let marks = picture.marks.iter().filter(|mark| mark.lane < lanes);
        let marks = marks.map(|mark| mark_row(&mut strings, mark, document(mark.document))).collect();
        let spans = picture.spans.iter().filter_map(|span| span_row(&mut strings, span, lanes)).collect();
        let broken = picture.broken.as_ref();
        Self {
            title: &picture.title,
            facts: &picture.facts,
            command: picture.command.as_deref(),
            documents: &picture.documents,
            plans: &picture.texts,
            verdict: &picture.verdict,
            broken: broken.map(|Broken { law, what, at }| (law.as_str(), what.as_str(), micros(*at))),
            lanes: picture.lanes.iter().map(|lane| (lane.name.as_str(), lane.note.as_str())).collect(),
            end: micros(picture.end),
            moments: picture.moments.iter().map(|(at, what)| (micros(*at), what.as_str())).collect(),
            strings: strings.all,
            frames,
            marks,
            spans,
        }
    }
}

fn micros(at: Instant) -> u64 {
    at.as_micros().min(MICROS_MAX)
}

fn frame_row<'a>(strings: &mut Strings<'a>, frame: &'a Frame, document: i64) -> FrameRow {
    let words = &frame.words;
    let family = match words.family {
        Family::Changes => 0,
        Family::Flow => 1,
        Family::Documents => 2,
        Family::Session => 3,
        Family::Link => 4,
        Family::Unknown => 5,
    };
    let copies = frame.copies.iter().map(|copy| {
        let (fate, reason) = match &copy.fate {
            Fate::Arrived => (0, -1),
            Fate::Lost(reason) => (1, strings.place(reason.as_str()) as i64),
            Fate::Underway => (2, -1),
        };
        (micros(copy.at), fate, copy.held_back.into(), copy.damaged.into(), reason)
    });
    let copies = copies.collect();
    let mut fields = strings.fields(&words.fields);
    // Whose number it is is told where the name is not known.
    if let (-1, Some(Named::OfSender(number) | Named::OfReceiver(number))) = (document, &words.document) {
        let whose = if matches!(words.document, Some(Named::OfSender(_))) { "sender" } else { "receiver" };
        fields.push(strings.place("document"));
        fields.push(strings.place(format!("number {number} of its {whose}")));
    }
    (frame.from, frame.to, micros(frame.sent), strings.place(words.kind), family, document, fields, copies)
}

fn mark_row<'a>(strings: &mut Strings<'a>, mark: &'a Mark, document: i64) -> MarkRow {
    let kind = strings.place(mark.kind.as_str());
    (micros(mark.at), mark.lane, mark.sign as usize, kind, document, strings.fields(&mark.fields))
}

fn span_row<'a>(strings: &mut Strings<'a>, span: &'a Span, lanes: usize) -> Option<SpanRow> {
    let (lane, other) = match span.place {
        Place::Lane(lane) => (lane, None),
        Place::Between(lane, other) => (lane, Some(other)),
    };
    if lane >= lanes || other.is_some_and(|other| other >= lanes) {
        return None;
    }
    let to = span.to.map_or(-1, |to| micros(to) as i64);
    let (kind, fields) = (strings.place(span.kind.as_str()), strings.fields(&span.fields));
    Some((micros(span.from), to, lane, other.map_or(-1, |other| other as i64), span.trouble as usize, kind, fields))
}

/// Texts, each once: kinds and the names of fields come again and again.
#[derive(Default)]
struct Strings<'a> {
    all: Vec<Cow<'a, str>>,
    places: BTreeMap<Cow<'a, str>, usize>,
}

impl<'a> Strings<'a> {
    fn place(&mut self, text: impl Into<Cow<'a, str>>) -> usize {
        let text = text.into();
        *self.places.entry(text.clone()).or_insert_with(|| {
            self.all.push(text);
            self.all.len() - 1
        })
    }

    /// Names and what they stand for, by turns.
    fn fields(&mut self, fields: &'a [Field]) -> Vec<usize> {
        fields.iter().flat_map(|(name, what)| [self.place(*name), self.place(what.as_str())]).collect()
    }
}
