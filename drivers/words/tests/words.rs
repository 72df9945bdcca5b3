//! Frames in words: every kind has some, and no bytes are too strange.

use antiphon::op::{Body, Cursor, Timeline};
use antiphon::wire::{Access, Changes, Confirm, Content, Message, Open, Ping, Run, Tag, WireCursor, WireHead};
use antiphon_words::{Family, FrameWords, Named, body_words, frame_words};
use bytes::Bytes;
use quickcheck::quickcheck;

fn field<'a>(words: &'a FrameWords, name: &str) -> &'a str {
    let found = words.fields.iter().find(|(known, _)| *known == name);
    found.map_or_else(|| panic!("no {name} in {words:?}"), |(_, what)| what)
}

fn open() -> Message {
    let cursor = Cursor { timeline: Timeline::new(0xb0), position: 300 };
    let own = antiphon::heads::Head { seq: 7, chain: antiphon::digest::Chain(0x77) };
    Message::Open(Open {
        number: 3,
        document: "notes".parse().expect("a name"),
        access: Access::Write,
        thorough: true,
        schema: None,
        timelines: None,
        begins: 40,
        horizon: 0,
        tail: 42,
        digest: 0xabcd,
        cursor: Some(WireCursor::from(cursor)),
        own: WireHead::from(own),
        acks: 0,
    })
}

#[test]
fn an_open_tells_the_name_that_later_frames_have_a_number_for() {
    let words = frame_words(&open().encode(), false);
    assert_eq!((words.kind, words.family, words.number), ("Open", Family::Documents, Some(3)));
    assert_eq!(words.document, Some(Named::Document("notes".parse().expect("a name"))));
    assert_eq!(field(&words, "tail"), "42");
    assert_eq!(field(&words, "holds"), "below 300 of your timeline 00000000000000b0");
    assert_eq!(field(&words, "of your ops"), "up to seq 7");
}

#[test]
fn control_messages_on_datagrams_are_told_by_what_is_inside() {
    let reliable = Message::Reliable(5, open().encode()).encode();
    let words = frame_words(&Tag::NONE.seal(&reliable), true);
    assert_eq!((words.kind, words.number), ("Open", Some(3)));
    assert_eq!(field(&words, "control message"), "5");
    assert_eq!(field(&words, "frame"), format!("{} bytes", reliable.len() + 4));
    // What nobody sends is not followed, however deep it is.
    let mut nested = Message::Confirm(Confirm { next: 1 }).encode();
    (0..10_000).for_each(|_| nested = Message::Reliable(0, nested.clone()).encode());
    assert_eq!(frame_words(&nested, false).family, Family::Unknown);
}

#[test]
fn ops_are_told_with_the_beginning_of_their_bodies() {
    let content = |bodies: Vec<Body>| {
        let runs = vec![Run { author: 2, seq: 4, count: bodies.len() as u64, blank: false }];
        Content::Bulk { span: bodies.len() as u64, runs, bodies }
    };
    let bodies = vec![Body::Bytes("first".into()), Body::Bytes("second".into())];
    let changes = Changes { document: 1, absolute: false, from: 2, content: content(bodies) };
    let words = frame_words(&Message::Changes(changes).encode(), false);
    assert_eq!((words.kind, words.family, &words.document), ("Bulk", Family::Changes, &Some(Named::OfSender(1))));
    assert_eq!(field(&words, "positions"), "begins + 2 to begins + 4");
    assert_eq!(field(&words, "run"), "author 2, from seq base + 4, 2 ops");
    assert_eq!(field(&words, "first body"), "5 bytes: “first”");
}

#[test]
fn bodies_are_told_as_texts_where_they_are_texts() {
    let told = |bytes: &[u8]| body_words(&Body::Bytes(bytes.to_vec().into()));
    assert_eq!(told(b""), "0 bytes");
    assert_eq!(told("grün".as_bytes()), "5 bytes: “grün”");
    assert_eq!(told(b"a\nb"), "3 bytes: 610a62");
    assert_eq!(told(&[0xff, 0]), "2 bytes: ff00");
    // Cut in the middle of a character.
    let long = "ä".repeat(20) + "x" + &"ä".repeat(20);
    assert_eq!(told(&long.as_bytes()[1..]).split(':').next(), Some("80 bytes"));
    assert!(told(("x".to_owned() + &"ä".repeat(40)).as_bytes()).ends_with("ä …”"));
}

#[test]
fn what_a_token_is_stays_between_the_two_ends() {
    let limits = antiphon::session::Config::default().limits;
    let hello = antiphon::wire::Hello {
        version_min: 1,
        version_max: 1,
        replica: antiphon::op::ReplicaId([1; 16]),
        timeline: Timeline::new(1),
        previous: None,
        nonce: 1,
        limits,
        features: 0,
        token: Some("let me in".into()),
        extensions: Bytes::new(),
    };
    let words = frame_words(&Message::Hello(hello).encode(), false);
    assert_eq!(field(&words, "token"), "9 bytes");
    assert!(!format!("{words:?}").contains("let me in"));
}

#[test]
fn a_frame_that_is_none_is_told_as_bytes() {
    let words = frame_words(&Bytes::from_static(&[0xff, 1, 2]), false);
    assert_eq!((words.kind, words.family), ("?", Family::Unknown));
    assert_eq!(field(&words, "bytes"), "3 bytes: ff0102");
}

quickcheck! {
    fn no_bytes_are_too_strange(bytes: Vec<u8>, datagram: bool) -> bool {
        let words = frame_words(&bytes.into(), datagram);
        // A preview of some bytes is all that is kept of them.
        words.fields.iter().map(|(_, what)| what.len()).sum::<usize>() < 4_000
    }

    fn frames_that_are_damaged_are_told_too(at: usize, bit: u8) -> bool {
        let ping = Message::Ping(Ping { token: 7, blocked: true }).encode();
        [open().encode(), ping].into_iter().all(|frame| {
            let mut damaged = frame.to_vec();
            let place = at % damaged.len();
            damaged[place] ^= 1 << (bit % 8);
            !frame_words(&damaged.into(), false).fields.is_empty()
        })
    }
}
