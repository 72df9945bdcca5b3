//! Sessions over WebSockets with no replica behind them: thousands of clients fit one process.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use antiphon::heads::Judgement;
use antiphon::log::Log;
use antiphon::op::{Body, DocumentId, Op, ReplicaId, Timeline};
use antiphon::session::{Config, Ending, Event, Input, Live, Local, Opening, Output, Session};
use antiphon::timeline::Opens;
use antiphon::wire::{Durability, Limits, Message, Ping};
use antiphon::{Instant as Moment, Machine};
use antiphon_node::{Connector, FrameReceiver, FrameSender, Transport};
use antiphon_websocket::{Client, SocketReceiver, SocketSender, Stream};
use async_executor::Executor;
use async_io::{Timer, block_on};
use futures_lite::future::{or, pending};

/// What is told of a client.
#[derive(Clone, Debug)]
pub(crate) enum Told {
    /// It has a session.
    Live,
    /// It has everything below this position of the server's log.
    Holds(u64),
    /// Its session is over, or the connection gone without a word.
    Ended(Option<Ending>),
}

/// A client that reads one document, or none, and keeps nothing but the heads.
pub(crate) struct Light {
    session: Session,
    log: Log,
    document: Option<DocumentId>,
    sender: SocketSender<Stream>,
    receiver: SocketReceiver<Stream>,
    begun: Instant,
    /// While it is true, nothing of what the server says is read.
    stalls: Arc<AtomicBool>,
}

impl Light {
    /// Connects as the `number`th client.
    pub(crate) async fn connect(url: &str, number: u64, document: Option<DocumentId>, stalls: Arc<AtomicBool>) -> Self {
        let mut client = Client::new(url).expect("a good address").connect_timeout(super::PATIENCE);
        let socket = client.connect(Limits::default().frame).await.expect("the server lets it in");
        let (sender, receiver) = socket.split();
        let timeline = Timeline::new(number);
        let mut replica = [0x11; 16];
        replica[..8].copy_from_slice(&number.to_le_bytes());
        let local = Local { replica: ReplicaId(replica), timeline, previous: None, nonce: number, token: None };
        let config = Config { durability: Durability::Memory, ..Config::default() };
        let session = Session::new(Moment::ZERO, config, local);
        let log = Log::new(Arc::new(Opens::first(timeline)));
        Self { session, log, document, sender, receiver, begun: Instant::now(), stalls }
    }

    /// Keeps the session until it is over.
    pub(crate) async fn run(mut self, mut tell: impl FnMut(Told)) {
        let ending = self.keep(&mut tell).await.ok().flatten();
        tell(Told::Ended(ending));
    }

    async fn keep(&mut self, tell: &mut impl FnMut(Told)) -> io::Result<Option<Ending>> {
        loop {
            while let Some(output) = self.session.poll() {
                self.carry_out(output, tell).await?;
            }
            self.sender.flush().await?;
            if let Some(ending) = self.session.ending() {
                return Ok(Some(ending.clone()));
            }
            if self.stalls.load(Ordering::SeqCst) {
                self.stall().await?;
            }
            let due = self.session.deadline().map(|due| self.begun + Duration::from_micros(due.as_micros()));
            let receiver = &mut self.receiver;
            let frame = or(async { receiver.receive().await.map(Some) }, async {
                Timer::at(due.unwrap_or(self.begun + super::PATIENCE)).await;
                Ok(None)
            });
            match frame.await? {
                Some(Some(frame)) => self.input(Input::Received(frame)),
                Some(None) => return Ok(None),
                None => self.input(Input::Timer),
            }
        }
    }

    fn input(&mut self, input: Input) {
        let now = Moment::from_micros(self.begun.elapsed().as_micros() as u64);
        self.session.handle(now, input).expect("it keeps to the rules");
    }

    async fn carry_out(&mut self, output: Output, tell: &mut impl FnMut(Told)) -> io::Result<()> {
        match output {
            Output::Transmit(frame) => self.sender.send(frame).await?,
            Output::Authenticate { .. } => self.input(Input::Authenticated(Ok(()))),
            Output::Event(Event::Connected { .. }) => {
                tell(Told::Live);
                if let Some(document) = self.document.clone() {
                    self.input(Input::Open(Opening::of(&self.log, document, 0).into()));
                }
            }
            Output::Take { origin, to, ops, .. } => {
                let from = self.log.tail();
                for Op { id, body } in ops {
                    // Heads and chains are those of the bodies, which are gone.
                    let op = Op { id, body: Body::Blank(body.hash()) };
                    assert_eq!(self.log.take(op, Some(origin)), Judgement::Next, "in order, and each once");
                }
                let (tail, digest) = (self.log.tail(), self.log.heads().digest());
                let live = Some(Live::Brought { by: origin, from, to: tail });
                self.input(Input::Advance { number: 0, tail, digest, held: to, live });
                tell(Told::Holds(to));
            }
            Output::Load { number, from, max_cost } => {
                let chunk = self.log.read(from, max_cost).expect("all is in memory");
                self.input(Input::Loaded { number, chunk });
            }
            Output::Compare { number, heads } => {
                let comparison = self.log.compare(&heads).expect("all is in memory");
                self.input(Input::Compared { number, comparison });
            }
            // Nobody compacts what it reads.
            Output::Event(_) | Output::ReadSnapshot { .. } | Output::TakeSnapshot { .. } => {}
        }
        Ok(())
    }

    /// Says that it is alive, and reads nothing, until it need not stall any more.
    async fn stall(&mut self) -> io::Result<()> {
        let mut asked = Instant::now();
        while self.stalls.load(Ordering::SeqCst) {
            Timer::after(Duration::from_millis(20)).await;
            if asked.elapsed() > Duration::from_secs(5) {
                asked = Instant::now();
                self.sender.send(Message::Ping(Ping { token: 1, blocked: false }).encode()).await?;
                self.sender.flush().await?;
            }
        }
        Ok(())
    }
}

/// An executor on a thread of its own, for as long as the test runs.
pub(crate) fn executor() -> Arc<Executor<'static>> {
    let executor = Arc::new(Executor::new());
    let works = executor.clone();
    thread::spawn(move || block_on(works.run(pending::<()>())));
    executor
}
