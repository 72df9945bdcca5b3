//! From the first frame to live, and from any state to closed. Knows nothing of documents but that they end too.

use alloc::boxed::Box;
use alloc::string::{String, ToString};

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use super::document::brief;
use super::link::turn;
use super::{BYTES_BEFORE_WELCOME, By, Ending, Event, FRAME_BYTES_MIN, Misuse, Output, Session, Timer};
use crate::codes::{Code, Retry};
use crate::wire::changes::is_changes;
use crate::wire::{
    Durability, Farewell, Hello, Limits, Malformed, Message, Pong, TRAILER_BYTES, Tag, VERSION, VERSION_MIN, Welcome,
};

/// Where the handshake is. Both ends go the same way; neither is client or server.
///
/// ```text
/// Greeting --Hello--> Asking --accepted--> Welcoming --Welcome--> Live
///     any state --Refuse, Goodbye, a deadline, an error--> Closed
/// ```
#[derive(Clone, Debug, Hash)]
pub(super) enum Phase {
    /// Hello was sent; the peer's is not here.
    Greeting,
    /// The host decides whether the peer may come in.
    Asking,
    /// The peer is welcome here; whether we are there is not known.
    Welcoming,
    /// Both are welcome.
    Live,
    /// Over.
    Closed(Ending),
}

/// What is known of the peer.
#[derive(Clone, Debug, Hash)]
pub(super) struct Peer {
    pub(super) hello: Hello,
    hello_hash: u64,
    version: u16,
    /// What marks its frames on datagrams.
    tag: Tag,
    /// A frame with its tag came (datagrams only): it is not an earlier session of which a late Hello is all there is.
    heard: bool,
    welcome: Option<Welcome>,
    /// What both ends keep to.
    pub(super) limits: Limits,
}

/// How many Hellos may be answered and give way to others. All but one of them are of sessions that are over.
const LEFT_MAX: usize = 8;

impl Peer {
    /// What its acknowledgements promise, once its Welcome is here.
    pub(super) fn durability(&self) -> Option<Durability> {
        self.welcome.map(|welcome| welcome.durability)
    }
}

impl Session {
    /// Our Hello, always the same. It is made when it is needed, and not kept by all who are past it.
    fn hello(&self) -> Bytes {
        let hello = Hello {
            version_min: VERSION_MIN,
            version_max: VERSION,
            replica: self.local.replica,
            timeline: self.local.timeline,
            previous: self.local.previous,
            nonce: self.local.nonce,
            limits: self.config.limits,
            features: 0, // presence is not sent yet
            token: self.local.token.clone(),
            extensions: Bytes::new(),
        };
        Message::Hello(hello).encode()
    }

    pub(super) fn greet(&mut self) {
        self.link.send_hello(self.hello());
        self.timers.set(Timer::Handshake, self.now + self.config.handshake_max);
        self.arm_repeat();
    }

    /// Whether the host has not answered whether the peer may come in.
    pub(crate) fn is_asking(&self) -> bool {
        matches!(self.phase, Phase::Asking)
    }

    /// Whether the host has let the peer in.
    pub(crate) fn has_accepted(&self) -> bool {
        matches!(self.phase, Phase::Welcoming | Phase::Live)
    }

    /// Repeats Hello until live, afterwards what the peer has not confirmed.
    pub(super) fn on_repeat_timer(&mut self) {
        const REPEATED_AT_ONCE: usize = 8;
        if !self.timers.fired(Timer::Repeat, self.now) {
            return;
        }
        if !self.is_live() {
            self.link.stats.frames_repeated += 1;
            self.link.send_hello(self.hello());
        }
        self.link.repeat_control(REPEATED_AT_ONCE);
        self.repeats += 1;
    }

    /// Sees to it that what may be lost is repeated.
    pub(super) fn arm_repeat(&mut self) {
        let open_ended = !self.is_live() || self.link.awaits_confirmation();
        if self.link.is_datagram() && open_ended && !matches!(self.phase, Phase::Closed(_)) {
            let wait = self.round_trip.wait(self.config.ack_delay, self.repeats);
            self.timers.set_earlier(Timer::Repeat, self.now + wait);
        } else {
            self.timers.stop(Timer::Repeat);
            self.repeats = 0;
        }
    }

    /// One frame from the link.
    pub(super) fn on_frame(&mut self, frame: Bytes) {
        self.link.stats.frames_received += 1;
        self.link.stats.bytes_received += frame.len() as u64;
        let Some((frame, turn)) = self.unseal(frame) else {
            self.link.stats.frames_dropped += 1;
            return;
        };
        if !self.has_accepted() {
            self.bytes_before_welcome += frame.len() as u64;
            if self.bytes_before_welcome > BYTES_BEFORE_WELCOME {
                return self.end(Code::OVERRUN, "too many bytes before Welcome");
            }
        }
        if frame.len() > self.config.limits.frame as usize {
            return self.end(Code::OVERSIZED, "a frame is over the stated limit");
        }
        self.last_heard = self.now;
        if let Err(malformed) = self.on_message_frame(frame, turn) {
            self.end(Code::MALFORMED, &malformed.to_string());
        }
    }

    fn on_message_frame(&mut self, frame: Bytes, turn_heard: u32) -> Result<(), Malformed> {
        match Message::from_frame(frame)? {
            Message::Hello(hello) => self.on_hello(hello),
            Message::Refuse(farewell) | Message::Goodbye(farewell) => self.on_farewell(farewell),
            _ if self.peer.is_none() => self.unexpected("a message came before Hello"),
            Message::Unknown(..) => {}
            Message::Welcome(welcome) => self.on_welcome(welcome),
            Message::Reliable(number, inner) if self.link.is_datagram() => {
                self.link.receive_control(number, inner);
                while let Some(inner) = self.link.next_control().filter(|_| self.ending().is_none()) {
                    let message = Message::from_frame(inner)?;
                    turn(&mut self.peer_turn, &message);
                    self.on_document_message(message, turn_heard)?;
                }
            }
            Message::Confirm(confirm) if self.link.is_datagram() => {
                if !self.link.confirmed(confirm.next) {
                    self.unexpected("a message was confirmed that was never sent");
                }
            }
            Message::Reliable(..) | Message::Confirm(_) => self.unexpected("a datagram's message on a reliable link"),
            Message::Ping(ping) => {
                self.link.send(&Message::Pong(Pong { token: ping.token }));
                if ping.blocked {
                    self.acknowledge_all();
                }
            }
            Message::Pong(pong) => {
                if let Some((_, at)) = self.ping.take_if(|(token, _)| *token == pong.token) {
                    self.round_trip.sample(self.now.since(at));
                }
            }
            message => self.on_document_message(message, turn_heard)?,
        }
        Ok(())
    }

    /// The frame without what a datagram adds, and its turn; `None` if it is damaged or not of this session.
    fn unseal(&mut self, frame: Bytes) -> Option<(Bytes, u32)> {
        const HELLO: u8 = 0x01;
        if !self.link.is_datagram() {
            return Some((frame, 0));
        }
        if let Some(peer) = &mut self.peer
            && let Some(turn) = peer.tag.turn_of(&frame)
        {
            let inner = frame.slice(..frame.len() - TRAILER_BYTES);
            peer.heard = true;
            return (turn == 0 || is_changes(&inner)).then_some((inner, turn));
        }
        if let Some(inner) = Tag::NONE.unseal(&frame) {
            return (inner.first() == Some(&HELLO)).then_some((inner, 0));
        }
        // A frame with the new nonces proves that the peer has begun a new session on this path.
        let candidate = self.candidate.as_ref()?;
        if candidate.1.unseal(&frame).is_some() {
            self.restarted();
        }
        None
    }

    fn restarted(&mut self) {
        let reason = String::from("the peer began a new session on this path");
        self.finish(Ending { code: Code::RESTARTED, reason, retry_after: None, by: By::Peer });
    }

    fn on_hello(&mut self, hello: Hello) {
        let nonce = hello.nonce;
        if let Some(peer) = &self.peer {
            if !self.link.is_datagram() {
                return self.unexpected("a second Hello");
            }
            if peer.hello.nonce == nonce {
                // It repeats Hello because our Welcome did not arrive.
                return self.send_welcome();
            }
            if self.is_asking() {
                return; // the host's answer must not fall to another; who means it says Hello again
            }
            if peer.heard {
                self.candidate = Some((nonce, Tag::new(nonce, self.local.nonce)));
                return self.link.send_hello(self.hello());
            }
            let another = self.has_accepted() && peer.hello.replica != hello.replica;
            if another || self.left.contains(&nonce) || self.left.len() >= LEFT_MAX {
                // What the host lets one replica do, it does not let another. And one that was answered before may have
                // heard what it was told: that can't be numbered anew.
                return self.restarted();
            }
            // Whichever Hello is the real one will be repeated, and wins.
            if self.has_accepted() {
                self.left.push(peer.hello.nonce);
            }
            self.start_over();
        }
        self.link.set_tag(Tag::new(self.local.nonce, nonce));
        if hello.version_min > VERSION || hello.version_max < VERSION_MIN {
            let theirs = alloc::format!("versions {} to {} are not spoken here", hello.version_min, hello.version_max);
            return self.end(Code::VERSION_MISMATCH, &theirs);
        }
        if hello.replica == self.local.replica {
            return self.end(Code::SAME_REPLICA, "both ends have the same replica id");
        }
        if hello.limits.frame < FRAME_BYTES_MIN {
            return self.end(Code::OVERSIZED, "the peer takes no frames that control messages fit in");
        }
        let version = hello.version_max.min(VERSION);
        let frame = self.config.limits.frame.min(hello.limits.frame);
        let limits = Limits { frame, ..hello.limits };
        self.credit = (0, u64::from(limits.credit));
        self.link.outputs.push_back(Output::Authenticate {
            replica: hello.replica,
            timeline: hello.timeline,
            token: hello.token.clone(),
        });
        let tag = Tag::new(nonce, self.local.nonce);
        let hello_hash = xxh3_64(&Message::Hello(hello.clone()).encode()); // its frame: there is one encoding
        self.peer = Some(Box::new(Peer { hello, hello_hash, version, tag, heard: false, welcome: None, limits }));
        self.phase = Phase::Asking;
    }

    /// The host has decided.
    pub(super) fn on_authenticated(&mut self, answer: Result<(), (Code, String)>) -> Result<(), Misuse> {
        if !matches!(self.phase, Phase::Asking) {
            return Err(Misuse::NotAsked);
        }
        match answer {
            Ok(()) => {
                self.phase = Phase::Welcoming;
                self.send_welcome();
                self.open_waiting();
                self.go_live();
            }
            Err((code, reason)) => self.end(code, &reason),
        }
        Ok(())
    }

    fn hellos(&self) -> u64 {
        xxh3_64(&self.hello()).wrapping_add(self.peer.as_ref().map_or(0, |peer| peer.hello_hash))
    }

    fn send_welcome(&mut self) {
        let Some(peer) = &self.peer else { return };
        if self.has_accepted() {
            let welcome = Welcome { version: peer.version, hellos: self.hellos(), durability: self.config.durability };
            self.link.send(&Message::Welcome(welcome));
        }
    }

    fn on_welcome(&mut self, welcome: Welcome) {
        let hellos = self.hellos();
        let Some(peer) = &mut self.peer else { return };
        if welcome.hellos != hellos || welcome.version != peer.version {
            return self.unexpected("Welcome is not for these two Hellos");
        }
        if peer.welcome.replace(welcome).is_some() && !self.link.is_datagram() {
            return self.unexpected("a second Welcome");
        }
        self.link.welcomed();
        self.go_live();
    }

    fn go_live(&mut self) {
        let Some(peer) = &self.peer else { return };
        let (Phase::Welcoming, Some(welcome)) = (&self.phase, peer.welcome) else { return };
        let replica = peer.hello.replica;
        self.phase = Phase::Live;
        self.timers.stop(Timer::Handshake);
        self.timers.set(Timer::Ping, self.now + self.config.ping_after);
        self.timers.set(Timer::Silence, self.now + self.config.silence_max);
        self.event(Event::Connected { replica, durability: welcome.durability });
    }

    pub(super) fn unexpected(&mut self, reason: &str) {
        self.end(Code::UNEXPECTED, reason);
    }

    /// Ends the session for a reason of ours.
    pub(super) fn end(&mut self, code: Code, reason: &str) {
        self.finish(Ending { code, reason: reason.to_string(), retry_after: None, by: By::Us });
    }

    fn on_farewell(&mut self, farewell: Farewell) {
        let Farewell { code, reason, retry_after } = farewell;
        let retry_after = retry_after.filter(|_| code.retry() != Retry::Never);
        self.finish(Ending { code, reason, retry_after, by: By::Peer });
    }

    fn refuse(&mut self, farewell: Farewell) {
        if self.link.is_datagram() && self.peer.is_some() {
            // Without it the peer can't tell whose Refuse this is, and the first may have been lost.
            self.link.send_hello(self.hello());
        }
        self.link.send(&Message::Refuse(farewell));
    }

    /// Ends the session, and tells the peer if it does not know.
    pub(super) fn finish(&mut self, ending: Ending) {
        if matches!(self.phase, Phase::Closed(_)) {
            return;
        }
        if ending.by == By::Us {
            let Ending { code, reason, retry_after, .. } = ending.clone();
            let farewell = Farewell { code, reason: brief(&reason), retry_after };
            if self.has_accepted() {
                self.link.send(&Message::Goodbye(farewell));
            } else {
                self.refuse(farewell);
            }
        }
        self.phase = Phase::Closed(ending.clone());
        self.forget_documents();
        self.event(Event::Closed(ending));
    }
}
