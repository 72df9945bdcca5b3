//! Bare sessions, two of them joined or one by itself.

use antiphon::codes::Code;
use antiphon::op::{ReplicaId, Timeline};
use antiphon::session::{By, Config, Input, Local, Misuse, Output, Transport};
use antiphon::wire::Message;
use antiphon::{Instant, Machine, Session};
use antiphon_memory::Pair;
use bytes::Bytes;

use super::{Host, unwrapped};

pub const NOW: Instant = Instant::from_millis(1);
pub const DATAGRAM: Transport = Transport::Datagram { mtu: 1200 };
pub const TRANSPORTS: [Transport; 2] = [Transport::Reliable, DATAGRAM];

pub fn id(side: usize) -> ReplicaId {
    ReplicaId([side as u8 + 1; 16])
}

pub fn timeline(side: usize) -> Timeline {
    Timeline::new(side as u64 + 10)
}

pub fn local(side: usize, nonce: u64) -> Local {
    Local { replica: id(side), timeline: timeline(side), previous: None, nonce, token: None }
}

pub fn session_of(local: Local, transport: Transport) -> Session {
    Session::new(NOW, Config { transport, ..Config::default() }, local)
}

pub fn session(side: usize, transport: Transport) -> Session {
    session_of(local(side, side as u64 + 20), transport)
}

pub fn pair(transport: Transport) -> Pair<Session> {
    Pair::new([0, 1].map(|side| session(side, transport)))
}

pub fn hosts() -> [Host; 2] {
    [0, 1].map(|side| Host::new(id(side), timeline(side), 3))
}

/// What a session has to say: frames, and everything else.
pub fn drain(session: &mut Session) -> (Vec<Bytes>, Vec<Output>) {
    let (mut frames, mut others) = (Vec::new(), Vec::new());
    while let Some(output) = session.poll() {
        match output {
            Output::Transmit(frame) => frames.push(frame),
            other => others.push(other),
        }
    }
    (frames, others)
}

pub fn feed(session: &mut Session, frames: impl IntoIterator<Item = Bytes>) -> Result<(), Misuse> {
    frames.into_iter().try_for_each(|frame| session.handle(NOW, Input::Received(frame)))
}

/// Lets the hosts answer, and delivers nothing.
pub fn answer(pair: &mut Pair<Session>, hosts: &mut [Host; 2], now: Instant) {
    for (side, host) in hosts.iter_mut().enumerate() {
        while let Some(output) = pair.poll(side) {
            host.answer(output).into_iter().for_each(|input| pair.handle(now, side, input).unwrap());
        }
    }
}

pub fn ending(session: &Session) -> Option<(Code, By)> {
    session.ending().map(|ending| (ending.code, ending.by))
}

/// The messages in frames of a transport, Reliable ones unwrapped.
pub fn messages<'a>(frames: impl IntoIterator<Item = &'a Bytes>, transport: Transport) -> Vec<Message> {
    frames.into_iter().map(|frame| unwrapped(frame, transport)).collect()
}

pub fn names<'a>(frames: impl IntoIterator<Item = &'a Bytes>, transport: Transport) -> Vec<&'static str> {
    messages(frames, transport).iter().map(Message::name).collect()
}
