//! Any bytes as a trace: reading, telling and replaying it never panics, and takes memory in proportion.

#![no_main]

use antiphon::{Replica, Session};
use antiphon_fuzz::{framed, session_setup, setup};
use antiphon_recorder::{Recordable as _, Run, Told, Trace};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

/// A list in memory takes more than its shortest form, and a body that is named again is as long as it was.
const PER_BYTE: u64 = 512;
const CONSTANT: u64 = 4 << 20;

fuzz_target!(|data: &[u8]| {
    let Some((form, rest)) = data.split_first() else { return };
    let segment = match form % 4 {
        1 => framed::<Replica>(setup(), rest),
        3 => framed::<Session>(session_setup(), rest),
        _ => Bytes::copy_from_slice(rest),
    };
    let length = segment.len() as u64;
    let info = allocation_counter::measure(|| read(segment));
    let bound = PER_BYTE * length + CONSTANT;
    assert!(info.bytes_max <= bound, "{} bytes in memory for a trace of {length}", info.bytes_max);
});

fn read(segment: Bytes) {
    let Ok(trace) = Trace::read([segment]) else { return };
    for run in &trace.runs {
        if run.header().machine == Session::NAME { tell::<Session>(run) } else { tell::<Replica>(run) }
    }
}

fn tell<M: Told>(run: &Run) {
    let mut transcript = M::transcript(run);
    let mut events = run.events::<M>();
    for event in events.by_ref() {
        assert!(!M::tell_input(&mut transcript, &event.input).to_string().is_empty());
    }
    assert!(events.end().is_some(), "every trace ends somehow");
    let Ok(replay) = run.replay::<M>() else { return };
    let mut transcript = M::transcript(run);
    for step in replay {
        let _ = M::tell_input(&mut transcript, &step.event.input).to_string();
        step.outputs.iter().for_each(|output| _ = M::tell_output(&mut transcript, output).to_string());
    }
}
