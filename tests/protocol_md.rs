//! PROTOCOL.md tells the truth: its examples decode to the values built here and encode to the same bytes, and its
//! tables are those of the code.
//!
//! With `ANTIPHON_CORPUS=1` the examples are also written to `fuzz/corpus/wire/`.

use std::collections::BTreeMap;
use std::path::Path;

use antiphon::codes::{CODES, Code, Fault, Retry};
use antiphon::digest::{BodyHash, Chain};
use antiphon::heads::{Head, Heads};
use antiphon::op::{Body, Cursor, DocumentId, ReplicaId, Timeline};
use antiphon::snapshot::SnapshotId;
use antiphon::wire::control::{pack_heads, unpack_heads};
use antiphon::wire::*;
use bytes::Bytes;

const ADA: ReplicaId = ReplicaId([0xa1; 16]);
const BOB: ReplicaId = ReplicaId([0xb0; 16]);
const ADA_NOW: Timeline = Timeline::new(0xadad_0000_0000_0002);
const ADA_BEFORE: Timeline = Timeline::new(0xadad_0000_0000_0001);
const BOB_NOW: Timeline = Timeline::new(0xb0b0_0000_0000_0001);
const NONCES: (u64, u64) = (0x1111_1111_1111_1111, 0x2222_2222_2222_2222);

fn hello() -> Message {
    Message::Hello(Hello {
        version_min: 1,
        version_max: 1,
        replica: ADA,
        timeline: ADA_NOW,
        previous: Some(ADA_BEFORE),
        nonce: NONCES.0,
        limits: Limits::default(),
        features: 0,
        token: Some(Bytes::from_static(b"let me in")),
        extensions: Bytes::new(),
    })
}

fn open() -> Open {
    Open {
        number: 3,
        document: notes(),
        access: Access::Write,
        thorough: false,
        schema: None,
        timelines: None,
        begins: 40,
        horizon: 0,
        tail: 42,
        digest: 0x0123_4567_89ab_cdef,
        cursor: Some(Cursor { timeline: BOB_NOW, position: 300 }.into()),
        own: Head { seq: 7, chain: Chain(0x7777) }.into(),
        acks: 0,
    }
}

fn notes() -> DocumentId {
    "notes".parse().unwrap()
}

fn changes(absolute: bool, from: u64, content: Content) -> Message {
    Message::Changes(Changes { document: 3, absolute, from, content })
}

fn hi() -> Body {
    Body::Bytes(Bytes::from_static(b"hi"))
}

/// The value behind each example.
fn examples() -> BTreeMap<&'static str, Message> {
    let heads: Heads = [(ADA, Head { seq: 8, chain: Chain(0x88) }), (BOB, Head { seq: 300, chain: Chain(0x99) })]
        .into_iter()
        .collect();
    let farewell = |code, retry_after| Farewell { code, reason: String::from("bye"), retry_after };
    let end = |code| End { document: notes(), code, reason: String::new() };
    let ack = Ack {
        document: 9,
        number: 1,
        received: Point::at(302),
        held: 301,
        window: 262_110,
        credit: 1_048_542,
        skip: None,
        level: None,
    };
    let point = |position, offset| Point { position, offset };
    let live = changes(false, 2, Content::Live { author: 0, seq: 1, body: hi() });
    let open_with_all = Open {
        document: DocumentId::new("notes", "draft", "eu").unwrap(),
        schema: Some(Schema { name: String::from("text"), version: 2 }),
        timelines: Some(OwnTimelines { current: Timeline::new(5), previous: None }),
        cursor: None,
        thorough: true,
        ..open()
    };
    [
        ("hello", hello()),
        ("welcome", Message::Welcome(Welcome { version: 1, hellos: 0xfeed, durability: Durability::Commit })),
        ("refuse", Message::Refuse(farewell(Code::VERSION_MISMATCH, None))),
        ("goodbye", Message::Goodbye(farewell(Code::SHUTDOWN, Some(1000)))),
        ("open", Message::Open(open())),
        ("open-with-all", Message::Open(open_with_all)),
        ("denied", Message::Denied(end(Code::FORBIDDEN))),
        ("close", Message::Close(end(Code::DONE))),
        ("resume", Message::Resume(Resume { document: 3, from: Some(40) })),
        ("resume-ask", Message::Resume(Resume { document: 3, from: None })),
        ("heads", {
            let heads = pack_heads(heads.iter(), usize::MAX).0;
            Message::Heads(HeadsPart { document: 3, offset: 0, last: true, heads })
        }),
        ("fork", Message::Fork(Fork { document: 3, authors: Bytes::copy_from_slice(&BOB.0) })),
        ("author", Message::Author(Announce { document: 3, number: 0, author: ADA, base: 7 })),
        ("live", live.clone()),
        ("live-blank", {
            let body = Body::Blank(BodyHash::of(b"hi"));
            changes(false, 2, Content::Live { author: 0, seq: 1, body })
        }),
        ("live-absolute", changes(true, 10, Content::Live { author: 0, seq: 2, body: hi() })),
        ("bulk", {
            let runs = vec![
                Run { author: 0, seq: 1, count: 2, blank: false },
                Run { author: 1, seq: 5, count: 1, blank: true },
            ];
            let bodies = vec![hi(), Body::Bytes(Bytes::from_static(b"you")), Body::Blank(BodyHash(0x42))];
            changes(false, 2, Content::Bulk { span: 4, runs, bodies })
        }),
        ("bulk-empty", changes(true, 20, Content::Bulk { span: 16, runs: Vec::new(), bodies: Vec::new() })),
        ("part", {
            let piece = Bytes::from_static(b"middle");
            changes(false, 2, Content::Part { author: 0, seq: 1, offset: 1000, total: 100_000, piece })
        }),
        ("ack", Message::Ack(ack)),
        ("ack-with-all", {
            let skip = Some(Skip { document: 3, from: 42, to: 44 });
            let level = Some(Level { tail: 44, digest: 0x0123_4567_89ab_cdef });
            Message::Ack(Ack { number: 2, received: point(302, 512), skip, level, ..ack })
        }),
        ("rewind", {
            let (received, from, to) = (point(302, 0), point(302, 0), Some(point(305, 0)));
            Message::Rewind(Rewind { document: 9, number: 3, received, from, to })
        }),
        ("rewind-all", {
            let (received, from) = (point(302, 0), point(302, 0));
            Message::Rewind(Rewind { document: 9, number: 4, received, from, to: None })
        }),
        ("ping", Message::Ping(Ping { token: 1, blocked: false })),
        ("pong", Message::Pong(Pong { token: 1 })),
        ("immediate-ack", Message::ImmediateAck(ImmediateAck { document: 9, to: 301 })),
        ("credit", Message::Credit(Credit { number: 5, total: 1_048_576 })),
        ("snapshot", {
            let id = SnapshotId { bytes: 1_000, head_bytes: 25, hash: [0x5a; 16] };
            Message::Snapshot(SnapshotPart { document: 3, id, offset: 25, bytes: Bytes::from_static(b"s") })
        }),
        ("snapshot-wanted", Message::SnapshotWanted(SnapshotWanted { document: 9, offset: 25, bytes: 975 })),
        ("presence", Message::Presence(Presence { document: 3, body: Bytes::from_static(b"p") })),
        ("reliable", Message::Reliable(0, Message::Resume(Resume { document: 3, from: Some(40) }).encode())),
        ("confirm", Message::Confirm(Confirm { next: 1 })),
        ("unknown", Message::Unknown(0x7f, Bytes::from_static(b"?"))),
        ("datagram-hello", hello()),
        ("datagram-live", live),
    ]
    .into_iter()
    .collect()
}

/// The bytes of an example as they go over the link.
fn frame(name: &str, message: &Message) -> Bytes {
    let frame = message.encode();
    match name {
        "datagram-hello" => Tag::NONE.seal(&frame),
        "datagram-live" => Tag::new(NONCES.0, NONCES.1).seal(&frame),
        _ => frame,
    }
}

fn page() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("PROTOCOL.md")).unwrap()
}

/// The blocks tagged `hex NAME`: bytes in hexadecimal, spaced at will, with comments after `#`.
fn blocks(page: &str) -> Vec<(&str, Vec<u8>)> {
    let mut blocks = Vec::new();
    for block in page.split("\n```hex ").skip(1) {
        let (name, rest) = block.split_once('\n').unwrap();
        let body = rest.split("```").next().unwrap();
        let digits: String = body.lines().flat_map(|line| line.split('#').next()).collect();
        let digits: Vec<char> = digits.chars().filter(|c| !c.is_whitespace()).collect();
        let byte = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap();
        blocks.push((name, digits.chunks(2).map(byte).collect()));
    }
    blocks
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x} ")).collect()
}

#[test]
fn examples_are_true() {
    let (page, examples) = (page(), examples());
    let blocks = blocks(&page);
    let named: Vec<_> = blocks.iter().map(|(name, _)| *name).collect();
    for (name, message) in &examples {
        assert!(named.contains(name), "no example {name}, which is {}", hex(&frame(name, message)));
    }
    for (name, bytes) in blocks {
        let message = examples.get(name).unwrap_or_else(|| panic!("{name} stands for no value in this test"));
        let frame = frame(name, message);
        assert_eq!(hex(&bytes), hex(&frame), "{name}");
        let unsealed = match name {
            "datagram-hello" => Tag::NONE.unseal(&frame).unwrap(),
            "datagram-live" => Tag::new(NONCES.0, NONCES.1).unseal(&frame).unwrap(),
            _ => frame.clone(),
        };
        assert_eq!(Message::decode(&unsealed).as_ref(), Ok(message), "{name}");
        assert_eq!(message.encode(), unsealed, "{name}");
    }
}

#[test]
fn heads_in_the_example_are_heads() {
    let Some(Message::Heads(part)) = examples().remove("heads") else { panic!("an example of heads") };
    let mut heads = Heads::new();
    assert_eq!(unpack_heads(part.heads, &mut heads, &mut None), Ok(()));
    assert_eq!(heads.len(), 2);
}

/// The cells of the table rows that follow a heading, without the table's own head.
fn table<'a>(page: &'a str, heading: &str) -> Vec<Vec<&'a str>> {
    let section = page.split(&format!("\n{heading}\n")).nth(1).unwrap_or_else(|| panic!("no section {heading}"));
    let rows = section.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    rows.skip(2).map(|row| row.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

#[test]
fn the_table_of_codes_is_that_of_the_code() {
    let rows = CODES.iter().map(|row| {
        let fault = match row.fault {
            Fault::Nobody => "nobody",
            Fault::Sender => "sender",
            Fault::Peer => "peer",
        };
        let retry = match row.retry {
            Retry::Now => "now",
            Retry::Later => "later",
            Retry::Never => "never",
        };
        format!("| {} | `{}` | {} | {fault} | {retry} |", row.code.0, row.name, row.condition)
    });
    let expected: Vec<_> = rows.collect();
    let page = page();
    let found: Vec<_> = table(&page, "## Codes").iter().map(|row| format!("| {} |", row.join(" | "))).collect();
    assert_eq!(found, expected, "the table should be\n{}", expected.join("\n"));
}

#[test]
fn the_table_of_limits_is_that_of_the_code() {
    let limits = Limits::default();
    let expected = [
        ("`frame`", limits.frame),
        ("`op`", limits.op),
        ("`window`", limits.window),
        ("`credit`", limits.credit),
        ("`documents`", limits.documents),
        ("`authors`", limits.authors),
    ];
    let page = page();
    let rows = table(&page, "### Stated in Hello");
    let found: Vec<_> = rows.iter().map(|row| (row[0], row[1].replace(',', "").parse().unwrap())).collect();
    assert_eq!(found, expected);
}

#[test]
fn the_table_of_kinds_is_that_of_the_code() {
    let page = page();
    let rows = table(&page, "## Messages");
    let kinds: BTreeMap<u8, String> = rows
        .iter()
        .map(|row| {
            (u8::from_str_radix(row[0].trim_matches('`').trim_start_matches("0x"), 16).unwrap(), row[1].to_string())
        })
        .collect();
    for (name, message) in examples() {
        if matches!(message, Message::Unknown(..)) {
            continue;
        }
        let kind = message.encode()[0];
        let expected = match &message {
            Message::Changes(changes) => match changes.content {
                Content::Live { .. } => "Live",
                Content::Bulk { .. } => "Bulk",
                Content::Part { .. } => "Part",
            },
            other => other.name(),
        };
        let kind = if kind & 0x10 != 0 && kind & 0x40 == 0 { kind & !0xa0 } else { kind };
        assert_eq!(kinds.get(&kind).map(String::as_str), Some(expected), "{name}, kind {kind:#04x}");
    }
    assert_eq!(kinds.len(), 25);
}

/// Seeds for the fuzz target of the wire; written only when asked for.
#[test]
fn the_corpus_can_be_written() {
    if std::env::var_os("ANTIPHON_CORPUS").is_none() {
        return;
    }
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/wire");
    std::fs::create_dir_all(&directory).unwrap();
    for (name, message) in examples() {
        std::fs::write(directory.join(name), frame(name, &message)).unwrap();
    }
}
