//! The page is whole, needs nothing else, and whatever was in the run is data in it.

use antiphon::Instant;
use antiphon::op::Body;
use antiphon::wire::{Changes, Content, Message};
use antiphon_report::{Broken, Copy, Fate, Frame, Lane, Mark, Picture, Place, Span, Trouble};
use antiphon_words::{Sign, frame_words};
use quickcheck::quickcheck;
use serde_json::Value;

/// What strangers may call their things.
const HOSTILE: [&str; 8] = [
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "]]></script >",
    "\"},\"strings\":[\"",
    "\u{2028}\u{2029}\u{0}\u{7}\u{1b}[31m",
    "{{script}}{{data}}",
    "'\"`${1}\\",
    "&lt;img src=x onerror=alert(1)&gt;<img src=http://example.com/x>",
];

/// A picture in which this text stands wherever a text can.
fn picture_of(text: &str) -> Picture {
    let own = || text.to_owned();
    let body = Body::Bytes(text.as_bytes().to_vec().into());
    let content = Content::Live { author: 0, seq: 1, body };
    let live = Message::Changes(Changes { document: 1, absolute: true, from: 0, content }).encode();
    let mut picture = Picture::new(text);
    picture.verdict = own();
    picture.facts.push((own(), own()));
    picture.command = Some(own());
    picture.texts.push((own(), own()));
    picture.broken = Some(Broken { law: own(), what: own(), at: Instant::from_millis(4) });
    picture.lanes = vec![Lane { name: own(), note: own() }, Lane { name: own(), note: own() }];
    let document = Some(picture.document(text));
    let copy = Copy { at: Instant::from_millis(2), fate: Fate::Lost(own()), held_back: true, damaged: true };
    let sent = Instant::from_millis(1);
    picture.frames.push(Frame { from: 0, to: 1, sent, words: frame_words(&live, false), document, copies: vec![copy] });
    let fields = vec![("reason", own())];
    picture.marks.push(Mark { at: sent, lane: 1, sign: Sign::Bad, kind: own(), document, fields: fields.clone() });
    let (place, trouble) = (Place::Between(0, 1), Trouble::Cut);
    picture.spans.push(Span { from: sent, to: None, place, trouble, kind: own(), fields });
    picture.moments.push((sent, own()));
    picture.end = Instant::from_millis(5);
    picture
}

/// What stands in the element of data, as the browser finds its end, and what stands around it.
fn split(page: &str) -> (String, &str) {
    let (before, rest) = page.split_once("<script id=\"data\" type=\"application/json\">").expect("it has data");
    let (data, after) = rest.split_once("</script>").expect("the element ends");
    (before.to_owned() + after, data)
}

fn data(page: &str) -> Value {
    serde_json::from_str(split(page).1).expect("the data are JSON")
}

#[test]
fn texts_of_strangers_are_data_and_nothing_else() {
    let (around, _) = split(&picture_of("harmless").page());
    for text in HOSTILE {
        let page = picture_of(text).page();
        let (page_around, json) = split(&page);
        assert_eq!(page_around, around, "{text:?} has changed the page");
        assert!(!json.contains(['<', '>', '&']), "{text:?}");
        let data = data(&page);
        assert_eq!(data["title"], text);
        assert_eq!(data["documents"][0], text);
        assert_eq!(data["plans"][0][1], text);
        assert_eq!(data["broken"][1], text);
        assert_eq!(data["lanes"][1][0], text);
        let strings = data["strings"].as_array().expect("an array");
        assert!(strings.iter().any(|string| string == text), "{text:?}");
    }
}

quickcheck! {
    fn any_text_is_data(text: String) -> bool {
        let page = picture_of(&text).page();
        split(&page).0 == split(&picture_of("harmless").page()).0 && data(&page)["command"] == text
    }
}

#[test]
fn the_page_needs_nothing_but_itself() {
    let page = picture_of("notes").page();
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'";
    assert!(page.contains(policy), "the browser is told to load nothing");
    for load in ["http:", "https:", "//cdn", " src=", "href=", "@import", "url(", "fetch(", "XMLHttpRequest", "import("]
    {
        assert!(!page.contains(load), "{load} in the page");
    }
    // Nothing that is not a text becomes part of the page.
    for way in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"] {
        assert!(!page.contains(way), "{way} in the page");
    }
}

#[test]
fn the_page_is_well_formed() {
    let page = picture_of("notes").page();
    let mut rest = page.strip_prefix("<!doctype html>").expect("it says what it is");
    let mut open = Vec::new();
    while let Some((_, tag)) = rest.split_once('<') {
        let (tag, after) = tag.split_once('>').expect("a tag ends");
        rest = after;
        let name = tag.split([' ', '/']).find(|name| !name.is_empty()).expect("a tag has a name");
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "before {:?}", rest.chars().take(40).collect::<String>());
        } else if !tag.ends_with('/') {
            open.push(name);
        }
        if matches!(name, "script" | "style") && !tag.starts_with('/') {
            // What stands in them is no markup, and ends where their end is found.
            let end = rest.find(&format!("</{name}")).expect("they end");
            rest = &rest[end..];
        }
    }
    assert!(open.is_empty(), "not closed: {open:?}");
    for id in ["picture", "overview", "details", "legend", "verdict"] {
        assert_eq!(page.matches(&format!(" id=\"{id}\"")).count(), 1, "{id}");
    }
}

#[test]
fn everything_that_has_a_place_is_in_the_data() {
    let mut picture = picture_of("notes");
    picture.frames[0].copies.push(Copy {
        at: Instant::from_micros(2_500),
        fate: Fate::Arrived,
        held_back: false,
        damaged: false,
    });
    let mut nowhere = picture.frames[0].clone();
    nowhere.to = 7;
    picture.frames.push(nowhere);
    picture.marks[0].document = Some(9);
    let data = data(&picture.page());
    let frames = data["frames"].as_array().expect("an array");
    assert_eq!(frames.len(), 1, "a frame to no lane has no place");
    let string = |place: &Value| &data["strings"][place.as_u64().expect("a place") as usize];
    assert_eq!(string(&frames[0][3]), "Live");
    assert_eq!((&frames[0][2], &frames[0][5]), (&Value::from(1_000), &Value::from(0)));
    let copies = frames[0][7].as_array().expect("an array");
    assert_eq!((&copies[0][0], &copies[0][1], string(&copies[0][4])), (&2_000.into(), &1.into(), &"notes".into()));
    assert_eq!((&copies[1][0], &copies[1][1], &copies[1][4]), (&2_500.into(), &0.into(), &(-1).into()));
    assert_eq!(data["marks"][0][4], -1, "a document without a place is none");
    assert_eq!((&data["spans"][0][1], &data["spans"][0][3]), (&Value::from(-1), &Value::from(1)));
    assert_eq!(data["end"], 5_000);
}

#[test]
fn times_that_scripts_can_t_count_are_cut_off() {
    let mut picture = picture_of("notes");
    picture.end = Instant::from_micros(u64::MAX);
    assert_eq!(data(&picture.page())["end"], (1u64 << 53) - 1);
}
