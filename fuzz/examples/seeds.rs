//! Writes the seeds of `corpus/session` anew: each golden transcript, once with the frames of either end as those of the
//! peer. The subject appends where the other end of the transcript did.

use std::path::Path;

use antiphon::wire::{Message, TRAILER_BYTES};
use antiphon_fuzz::Run;
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
