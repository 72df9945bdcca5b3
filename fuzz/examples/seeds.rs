//! Writes the seeds of all corpora anew but those of `corpus/wire`.
//!
//! Those of sessions are each golden transcript, once with the frames of either end as those of the peer; the subject
//! appends where the other end of the transcript did. Those of traces are what two replicas did that met. Those of replicas
//! and plans are drawn; those of databases are how each kind of such an input begins.

use std::path::Path;

use antiphon::replica::{Input, LinkId, Options, Output};
use antiphon::rng::Rng;
use antiphon::session::Transport;
use antiphon::storage::{Continuity, Storage};
use antiphon::store::{ClientId, Json, Store};
use antiphon::wire::{Message, TRAILER_BYTES};
use antiphon::{Instant, Machine, Replica};
use antiphon_fuzz::{Play, Run, drawn, framed, setup, unframed};
use antiphon_memory::MemoryStorage;
use antiphon_recorder::{Memory, Options as Recording, Recorder, Trace};
use bytes::Bytes;

/// What the steps begin with, as `steps.rs` reads them.
const WRITE: u8 = 5;
const INVENT: u8 = 9;
const TIMER: u8 = 14;

/// A beginning with a handshake in which no document is opened.
const HANDSHAKE_ALONE: u8 = 0x18;
/// A past in which the subject has an op of its own, and the peer none.
const OWN_OP: u8 = 0x80;

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    sessions(root);
    traces(root);
    replicas(root);
    plans(root);
    databases(root);
    stores(root);
}

fn write(root: &Path, target: &str, name: &str, seed: &[u8]) {
    let corpus = root.join("corpus").join(target);
    std::fs::create_dir_all(&corpus).expect("the checkout can be written to");
    std::fs::write(corpus.join(name), seed).expect("the checkout can be written to");
}

fn dice(seed: u64, len: usize) -> Vec<u8> {
    let mut dice = Rng::new(seed);
    (0..len).map(|_| dice.next_u64() as u8).collect()
}

fn replicas(root: &Path) {
    for number in 0..8 {
        let seed = [vec![number % 2, number % 4, number % 3], dice(number.into(), 400)].concat();
        let mut play = Play::new(&seed);
        play.steps();
        assert!(play.was_live, "replica {number} is of no use");
        write(root, "replica", &number.to_string(), &seed);
    }
}

fn plans(root: &Path) {
    for number in 0..8 {
        let seed = dice(100 + number, 300);
        assert!(!drawn(&seed).nodes.is_empty());
        write(root, "converge", &number.to_string(), &seed);
    }
}

fn databases(root: &Path) {
    let head = b"SQLite format 3\0\x10\0\x02\x02\0\x40\x20\x20";
    write(root, "sqlite", "database", &[&[0][..], head, &[0; 480]].concat());
    write(root, "sqlite", "changes", &[1, 1, 60, 0, 0, 0, 255, 0, 16, 0, 0, 1]);
    write(root, "sqlite", "lock", b"\x02antiphon\n1\nend\n");
    write(root, "sqlite", "log", &[&[3][..], b"\x37\x7f\x06\x82\0\x2d\xe2\x18\0\0\x10\0", &[0; 60]].concat());
}

fn stores(root: &Path) {
    const WALL: u64 = 1_700_000_000_000;
    let mut store = Store::new(ClientId::new(1));
    for number in 0..4u8 {
        let mut transaction = store.begin(WALL).expect("the time is right");
        let (row, text) = (format!("row {number}"), "x".repeat(number.into()));
        transaction.set_cell("table", &row, "int", i64::from(number) << 20).expect("it fits");
        transaction.set_cell("table", &row, "text", &*text).expect("it fits");
        transaction.set_cell("table", "all", "json", Json::parse("[1.5,{}]").expect("it is")).expect("it fits");
        transaction.set_value("float", f64::from(number)).expect("it fits");
        if number == 2 {
            transaction.delete_tables().expect("it fits");
        }
        let body = transaction.commit().expect("it fits").body.expect("something changed");
        write(root, "store", &format!("op-{number}"), &[&[0][..], &body].concat());
    }
    write(root, "store", "snapshot", &[&[0][..], &store.snapshot()].concat());
    for number in 0..4 {
        write(root, "store", &format!("history-{number}"), &[vec![255], dice(200 + number, 240)].concat());
    }
}

fn sessions(root: &Path) {
    let corpus = root.join("corpus/session");
    std::fs::create_dir_all(&corpus).expect("the checkout can be written to");
    for entry in std::fs::read_dir(root.join("../tests/golden")).expect("the transcripts are there") {
        let path = entry.expect("the transcripts are there").path();
        let transcript = std::fs::read_to_string(&path).expect("transcripts are text");
        let name = path.file_stem().expect("transcripts have names").to_string_lossy().into_owned();
        for from in ["a", "b"] {
            let seed = seed(&transcript, from, name == "loss");
            let mut run = Run::new(&seed);
            run.steps();
            assert!(run.was_live, "{name}-{from} is of no use");
            std::fs::write(corpus.join(format!("{name}-{from}")), seed).expect("the checkout can be written to");
        }
    }
}

/// The run in which the peer says what one end of a transcript says after its Welcome. The document of the transcripts
/// has number 1 at both ends, as the subject's second one.
fn seed(transcript: &str, from: &str, datagram: bool) -> Vec<u8> {
    let mut steps = Vec::new();
    let (mut past, mut last) = (0, None);
    for line in transcript.lines().filter(|line| !line.starts_with('#')) {
        let words: Vec<_> = line.split(' ').collect();
        let [at, sender, _, hex] = words[..4] else { panic!("{line}") };
        let at: f64 = at.trim_end_matches('s').parse().expect("it begins with the time");
        let wait = at - last.replace(at).unwrap_or(at);
        if wait > 0.0 {
            // A timer waits for half a millisecond times the square of its byte.
            let byte = (wait * 2000.0).sqrt().ceil();
            steps.extend([TIMER, byte as u8, 0]);
        }
        let frame = bytes(hex);
        let inner = if datagram { frame.slice(..frame.len() - TRAILER_BYTES) } else { frame };
        match Message::decode(&inner).expect("transcripts can be decoded") {
            Message::Hello(_) | Message::Welcome(_) => {}
            message if sender == from => {
                let frame = renamed(message).encode();
                steps.extend([INVENT, u8::try_from(frame.len()).expect("the frames are small")]);
                steps.extend_from_slice(&frame);
            }
            Message::Open(open) if open.tail > 0 => past = OWN_OP,
            Message::Changes(_) => steps.extend([WRITE, 1, 12, 1]),
            _ => {}
        }
    }
    // The transport, the default limits, hosts that answer at once, the pasts of three documents, the beginning.
    [vec![u8::from(datagram), 0, 0, 0, 0, past, 0, HANDSHAKE_ALONE], steps].concat()
}

/// A message about the subject's second document.
fn renamed(message: Message) -> Message {
    let name = || "two".parse().expect("the name is valid");
    match message {
        Message::Open(open) => Message::Open(antiphon::wire::Open { document: name(), ..open }),
        Message::Close(end) => Message::Close(antiphon::wire::End { document: name(), ..end }),
        Message::Reliable(number, inner) => {
            let inner = Message::decode(&inner).expect("transcripts can be decoded");
            Message::Reliable(number, renamed(inner).encode())
        }
        message => message,
    }
}

fn bytes(hex: &str) -> Bytes {
    let pair = |index: usize| u8::from_str_radix(&hex[2 * index..2 * index + 2], 16).expect("frames are in hex");
    (0..hex.len() / 2).map(pair).collect()
}

// -------------------------------------------------------------------------------------------- traces

fn traces(root: &Path) {
    let corpus = root.join("corpus/replay");
    std::fs::create_dir_all(&corpus).expect("the checkout can be written to");
    let write = |name: &str, seed: Vec<u8>| {
        std::fs::write(corpus.join(name), seed).expect("the checkout can be written to");
    };
    for (name, transport) in [("reliable", Transport::Reliable), ("datagram", Transport::Datagram { mtu: 1200 })] {
        let segment = recorded(transport, false);
        write(name, [&[0], &segment[..]].concat());
        let payloads = unframed(&segment);
        let trace = Trace::read([framed::<Replica>(setup(), &payloads)]).expect("its header is right");
        let mut replay = trace.runs[0].replay::<Replica>().expect("it has its beginning");
        assert!(replay.all(|step| !step.differs()), "{name}-framed is of no use");
        write(&format!("{name}-framed"), [&[1], &payloads[..]].concat());
        write(&format!("{name}-redacted"), [&[0], &recorded(transport, true)[..]].concat());
    }
}

/// What happened to the first of two replicas that write, and meet.
fn recorded(transport: Transport, redacted: bool) -> Bytes {
    const LINK: LinkId = LinkId(3);
    let memory = Memory::new(u64::MAX);
    let options = Recording { redacted, began: 0 };
    let mut storages = [MemoryStorage::new(), MemoryStorage::new()];
    let identity = storages[1].open(Continuity::Proven, &mut Rng::new(2)).expect("it is new");
    let mut replicas = [
        Recorder::new(setup(), memory.clone(), options),
        Recorder::idle(Replica::new(Default::default(), identity, [2; 32])),
    ];
    let document: antiphon::op::DocumentId = "notes".parse().expect("the name is valid");
    let mut now = Instant::ZERO;
    for replica in &mut replicas {
        let open = Input::Open { document: document.clone(), options: Options::default() };
        let token = Some(Bytes::from_static(b"token"));
        let connect = Input::Connected { link: LINK, transport, token, upstream: false };
        [open, connect].into_iter().for_each(|input| replica.handle(now, input).expect("it is no misuse"));
    }
    for step in 0..40u64 {
        if step % 10 == 0 {
            let bodies = vec![vec![step as u8; 20 * step as usize].into(), Bytes::from_static(b"short")];
            let append = Input::Append { document: document.clone(), bodies };
            replicas[usize::from(step % 20 == 0)].handle(now, append).expect("it is open");
        }
        while let Some((end, output)) = (0..2).find_map(|end| Some((end, replicas[end].poll()?))) {
            match output {
                Output::Transmit { frame, .. } => {
                    replicas[1 - end].handle(now, Input::Received { link: LINK, frame }).expect("it is no misuse");
                }
                Output::Storage { ticket, request } => {
                    let reply = storages[end].execute(&request).map_err(|error| error.to_string());
                    replicas[end].handle(now, Input::Storage { ticket, reply }).expect("it was asked");
                }
                _ => {}
            }
        }
        now = Instant::from_millis(step * 20);
        replicas.iter_mut().for_each(|replica| replica.handle(now, Input::Timer).expect("it may come at any time"));
    }
    replicas.iter_mut().for_each(Recorder::finish);
    memory.segments().remove(0)
}
