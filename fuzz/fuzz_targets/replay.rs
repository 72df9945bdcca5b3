//! Any bytes as a trace: reading, telling and replaying it never panics, and takes memory in proportion.

#![no_main]

use antiphon::Replica;
use antiphon_fuzz::framed;
use antiphon_recorder::{Trace, Transcript};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

/// A list in memory takes more than its shortest form, and a body that is named again is as long as it was.
const PER_BYTE: u64 = 512;
const CONSTANT: u64 = 4 << 20;

fuzz_target!(|data: &[u8]| {
    let Some((form, rest)) = data.split_first() else { return };
    let segment = if form % 2 == 0 { Bytes::copy_from_slice(rest) } else { framed(rest) };
    let length = segment.len() as u64;
    let info = allocation_counter::measure(|| read(segment));
    let bound = PER_BYTE * length + CONSTANT;
    assert!(info.bytes_max <= bound, "{} bytes in memory for a trace of {length}", info.bytes_max);
});

fn read(segment: Bytes) {
    let Ok(trace) = Trace::read([segment]) else { return };
    for run in &trace.runs {
        let mut transcript = Transcript::new();
        let mut events = run.events::<Replica>();
        for event in events.by_ref() {
            assert!(!transcript.input(&event.input).to_string().is_empty());
        }
        assert!(events.end().is_some(), "every trace ends somehow");
        let Ok(mut replay) = run.replay::<Replica>() else { continue };
        let mut transcript = Transcript::new();
        for step in replay.by_ref() {
            let _ = transcript.input(&step.event.input).to_string();
            step.outputs.iter().for_each(|output| _ = transcript.output(output).to_string());
        }
    }
}
