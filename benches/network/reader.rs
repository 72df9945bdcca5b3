//! Readers that cost little: many of them must not take from the server the time that is measured.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use antiphon::op::DocumentId;
use antiphon::replica::{Config, Event, Input, LinkId, Options, Output, Replica};
use antiphon::rng::Rng;
use antiphon::session::Transport;
use antiphon::storage::{Continuity, Storage};
use antiphon::{Instant as Moment, Machine};
use antiphon_memory::MemoryStorage;
use smol::Timer;
use smol::future::or;

use crate::raw::Socket;
use crate::replica::in_memory;

const LINK: LinkId = LinkId(0);

/// A replica in memory with one document, driven by hand over a raw socket, with no thread of its own. On the wire it
/// is as any other.
pub(crate) struct Reader {
    replica: Replica,
    storage: MemoryStorage,
    socket: Socket,
    epoch: Instant,
    document: DocumentId,
    in_step: bool,
}

impl Reader {
    /// Connects, and opens the document, which the server must have.
    pub(crate) async fn join(server: SocketAddr, document: &DocumentId) -> Self {
        let mut entropy = [0; 32];
        getrandom::fill(&mut entropy).expect("the system has some");
        let mut storage = in_memory();
        let identity = storage.open(Continuity::Proven, &mut Rng::from_entropy(entropy)).expect("nobody else has it");
        getrandom::fill(&mut entropy).expect("the system has some");
        let replica = Replica::new(Config::default(), identity, entropy);
        let (socket, epoch, document) = (Socket::connect(server).await, Instant::now(), document.clone());
        let mut reader = Self { replica, storage, socket, epoch, document, in_step: false };
        reader.input(Input::Open { document: reader.document.clone(), options: Options::default() });
        reader.input(Input::Connected { link: LINK, transport: Transport::Reliable, token: None, upstream: false });
        reader.carry_out().await;
        while !reader.in_step {
            reader.turn().await;
        }
        reader
    }

    /// Reads until it holds this many ops.
    pub(crate) async fn read_to(&mut self, tail: u64) {
        while self.replica.document(&self.document).is_none_or(|(_, held)| held < tail) {
            self.turn().await;
        }
    }

    pub(crate) fn frames_received(&self) -> u64 {
        self.replica.session(LINK).map_or(0, |session| session.stats().frames_received)
    }

    /// Waits for what happens next, and does what the replica wants done then.
    async fn turn(&mut self) {
        let due = self.replica.deadline().map(|due| self.epoch + Duration::from_micros(due.as_micros()));
        let frame = async { Some(self.socket.receive().await.expect("the server goes on")) };
        let timer = async {
            due.map_or_else(Timer::never, Timer::at).await;
            None
        };
        let input = or(frame, timer).await.map_or(Input::Timer, |frame| Input::Received { link: LINK, frame });
        self.input(input);
        self.carry_out().await;
    }

    fn input(&mut self, input: Input) {
        let now = Moment::from_micros(self.epoch.elapsed().as_micros() as u64);
        self.replica.handle(now, input).expect("it is used as it should be");
    }

    async fn carry_out(&mut self) {
        while let Some(output) = self.replica.poll() {
            match output {
                Output::Transmit { frame, .. } => self.socket.feed(frame).await,
                Output::Storage { ticket, request } => {
                    let reply = self.storage.execute(&request).map_err(|error| error.to_string());
                    self.input(Input::Storage { ticket, reply });
                }
                Output::Event(Event::InStep { .. }) => self.in_step = true,
                Output::Disconnect { ending, .. } => panic!("the session ended: {ending:?}"),
                Output::Event(_) | Output::Ask { .. } => {}
            }
        }
        self.socket.flush().await;
    }
}
