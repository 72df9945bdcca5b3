//! A recording as a picture: a line for the replica, and one for each of its links.

use std::collections::BTreeMap;

use antiphon::Instant;
use antiphon::replica::LinkId;
use antiphon_recorder::Line;
use antiphon_report::{Broken, Copy, Fate, Frame, Lane, Mark, Picture, Place, Span, Trouble};
use antiphon_words::{FrameWords, Sign};

/// A picture of what is told.
#[derive(Debug)]
pub(super) struct Drawing {
    picture: Picture,
    /// The lanes of links.
    lanes: BTreeMap<LinkId, usize>,
    /// The places of the spans in which links are gone, by their lanes.
    gone: BTreeMap<usize, usize>,
}

/// The replica's lane.
const REPLICA: usize = 0;

impl Drawing {
    pub(super) fn new(title: String, command: String) -> Self {
        let mut picture = Picture::new(title);
        picture.command = Some(command);
        picture.lanes.push(Lane { name: String::from("replica"), note: String::from("that was recorded") });
        Self { picture, lanes: BTreeMap::new(), gone: BTreeMap::new() }
    }

    /// Something that is told.
    pub(super) fn add(&mut self, at: Instant, line: Line) {
        self.picture.end = self.picture.end.max(at);
        let Line { arrow, link, document, kind, family, sign, mut fields } = line;
        let lane = link.map(|link| self.lane(link));
        let document = document.map(|document| self.picture.document(&document.to_string()));
        if let (Some(family), Some(lane)) = (family, lane) {
            let words = FrameWords { kind, family, document: None, number: None, fields };
            let arrived = Copy { at, fate: Fate::Arrived, held_back: false, damaged: false };
            // Of a frame that came it is known when, and of one that went nothing else.
            let (from, to, copies) =
                if arrow == "<-" { (lane, REPLICA, vec![arrived]) } else { (REPLICA, lane, Vec::new()) };
            self.picture.frames.push(Frame { from, to, sent: at, words, document, copies });
            return;
        }
        let Some(sign) = sign else { return };
        // What a link does is marked on its own line.
        let of_link = lane.filter(|_| sign == Sign::Link);
        match (of_link, arrow, kind) {
            (Some(lane), "", "Connected") => self.comes(at, lane),
            (Some(lane), "", "Disconnected") => self.goes(at, lane),
            (Some(_), ..) => {}
            (None, ..) => fields.extend(link.map(|link| ("link", link.0.to_string()))),
        }
        let lane = of_link.unwrap_or(REPLICA);
        self.picture.marks.push(Mark { at, lane, sign, kind: kind.to_owned(), document, fields });
    }

    fn lane(&mut self, link: LinkId) -> usize {
        *self.lanes.entry(link).or_insert_with(|| {
            self.picture.lanes.push(Lane { name: format!("link {}", link.0), note: String::new() });
            self.picture.lanes.len() - 1
        })
    }

    fn comes(&mut self, at: Instant, lane: usize) {
        match self.gone.remove(&lane) {
            Some(span) => self.picture.spans[span].to = Some(at),
            None => self.absent(Instant::ZERO, Some(at), lane),
        }
    }

    fn goes(&mut self, at: Instant, lane: usize) {
        self.gone.insert(lane, self.picture.spans.len());
        self.absent(at, None, lane);
    }

    fn absent(&mut self, from: Instant, to: Option<Instant>, lane: usize) {
        let (place, trouble, fields) = (Place::Lane(lane), Trouble::Absent, Vec::new());
        self.picture.spans.push(Span { from, to, place, trouble, kind: String::from("not connected"), fields });
    }

    /// The event at which it came to something else.
    pub(super) fn differs(&mut self, at: Instant, what: String) {
        self.picture.end = self.picture.end.max(at);
        self.picture.broken = Some(Broken { law: String::from("what is run again comes to the same"), what, at });
    }

    /// The picture, now that all is told.
    pub(super) fn finish(mut self, verdict: String, facts: Vec<(String, String)>) -> Picture {
        (self.picture.verdict, self.picture.facts) = (verdict, facts);
        self.picture
    }
}
