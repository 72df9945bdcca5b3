//! The core under tokio: two replicas over TCP. The replica is a task that waits with `select!` for what comes in and for
//! its deadline; reading and writing the socket are two more. Frames go with their length before them.

use std::error::Error;
use std::net::Ipv4Addr;
use std::time::Duration;

use antiphon::codes::Code;
use antiphon::op::DocumentId;
use antiphon::replica::{Config, Event, Input, LinkId, Misuse, Options, Output, Replica};
use antiphon::rng::Rng;
use antiphon::session::Transport;
use antiphon::storage::{Continuity, Storage};
use antiphon::wire::{Access, Limits};
use antiphon::{Instant as Moment, Machine};
use antiphon_memory::MemoryStorage;
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader, BufWriter};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{Receiver, Sender, UnboundedReceiver, UnboundedSender, channel, unbounded_channel};
use tokio::time::{Instant, sleep_until};

/// What each of the two writes.
const OPS: u64 = 1000;

/// The only link that a replica has here.
const LINK: LinkId = LinkId(1);

/// How much may wait to be written to a socket. Beyond, the session holds back what it has to send.
const OUTBOX_BYTES: u64 = 256 << 10;

/// How many frames may wait for a replica. Beyond, no more are read, and TCP holds the peer back.
const INBOX_FRAMES: usize = 64;

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let server = tokio::spawn(async move { Peer::new(listener.accept().await?.0)?.run(false).await });
    let client = Peer::new(TcpStream::connect(address).await?)?.run(true).await?;
    let server = server.await??;
    if client != server {
        return Err(format!("the client holds {client:x?}, the server {server:x?}").into());
    }
    println!("in step: 2 replicas, {} ops, heads {:016x}", client.0, client.1);
    Ok(())
}

/// What comes to a replica from its socket.
enum News {
    Frame(Bytes),
    /// So many bytes of frames have been written.
    Written(u64),
    /// The connection is closed, or broken.
    Gone,
}

struct Peer {
    replica: Replica,
    storage: MemoryStorage,
    document: DocumentId,
    epoch: Instant,
    inbox: Receiver<News>,
    outbox: UnboundedSender<Bytes>,
    /// Bytes in the outbox.
    queued: u64,
    /// Both ends hold everything that both write.
    complete: bool,
    /// The session is over.
    over: bool,
}

impl Peer {
    fn new(stream: TcpStream) -> Result<Self, Failure> {
        stream.set_nodelay(true)?; // frames are batches already
        let (reader, writer) = stream.into_split();
        let (news, inbox) = channel(INBOX_FRAMES);
        let (outbox, frames) = unbounded_channel();
        tokio::spawn(read_frames(reader, news.clone()));
        tokio::spawn(write_frames(writer, frames, news));

        let mut storage = MemoryStorage::new();
        let identity = storage.open(Continuity::Proven, &mut Rng::from_entropy(entropy()?))?;
        let replica = Replica::new(Config::default(), identity, entropy()?);
        let (document, epoch) = ("notes".parse()?, Instant::now());
        Ok(Self { replica, storage, document, epoch, inbox, outbox, queued: 0, complete: false, over: false })
    }

    /// Writes, gets in step, and says how many ops the storage holds and what the digest of its heads is.
    async fn run(mut self, says_goodbye: bool) -> Result<(u64, u64), Failure> {
        let document = self.document.clone();
        self.input(Input::Open { document: document.clone(), options: Options::default() })?;
        self.input(Input::Connected { link: LINK, transport: Transport::Reliable, token: None, upstream: false })?;
        self.input(Input::Writable { link: LINK, bytes: OUTBOX_BYTES })?;
        for number in 0..OPS {
            let bodies = vec![format!("op {number}").into()];
            self.input(Input::Append { document: document.clone(), bodies })?;
        }
        loop {
            self.carry_out()?;
            if self.over {
                break;
            }
            let input = if self.complete && says_goodbye {
                let (code, reason) = (Code::SHUTDOWN, "all is said".into());
                Input::Disconnect { link: LINK, code, reason, retry_after: None }
            } else {
                self.next_input().await
            };
            self.input(input)?;
        }
        self.carry_out()?; // how far the peer's log is held is stored at the end
        let stored = self.storage.document(&document)?;
        drop(self.outbox);
        while let Some(News::Frame(_) | News::Written(_)) = self.inbox.recv().await {} // until the peer closes too
        Ok((stored.tail, stored.heads.digest()))
    }

    fn input(&mut self, input: Input) -> Result<(), Misuse> {
        let micros = u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.replica.handle(Moment::from_micros(micros), input)
    }

    /// Does what the replica wants done, until it wants nothing. A storage on disk would belong to a thread of its own:
    /// its replies may come whenever they do.
    fn carry_out(&mut self) -> Result<(), Failure> {
        while let Some(output) = self.replica.poll() {
            match output {
                Output::Transmit { frame, .. } => {
                    self.queued += frame.len() as u64;
                    let _ = self.outbox.send(frame); // if the writer is gone, so is the link: that news is in the inbox
                }
                Output::Disconnect { .. } => self.over = true,
                Output::Storage { ticket, request } => {
                    let reply = self.storage.execute(&request).map_err(|error| error.to_string());
                    self.input(Input::Storage { ticket, reply })?;
                }
                // Only with Admission::Ask.
                Output::Ask { ticket, .. } => self.input(Input::Answer { ticket, answer: Ok(Access::Write) })?,
                Output::Event(Event::InStep { document, .. }) => {
                    let tail = self.replica.document(&document).map_or(0, |(_, tail)| tail);
                    self.complete = tail == 2 * OPS;
                }
                Output::Event(Event::Closed { code, reason, .. }) => {
                    return Err(format!("the document was closed: {code}, {reason}").into());
                }
                Output::Event(Event::Failed { reason, .. }) => {
                    return Err(format!("the storage failed: {reason}").into());
                }
                Output::Event(_) => {}
            }
        }
        Ok(())
    }

    /// Waits until there is news, or a timer is due.
    async fn next_input(&mut self) -> Input {
        let due = self.replica.deadline().map(|due| self.epoch + Duration::from_micros(due.as_micros()));
        let timer = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            news = self.inbox.recv() => match news {
                Some(News::Frame(frame)) => Input::Received { link: LINK, frame },
                Some(News::Written(bytes)) => {
                    self.queued -= bytes;
                    Input::Writable { link: LINK, bytes: OUTBOX_BYTES.saturating_sub(self.queued) }
                }
                Some(News::Gone) | None => {
                    self.over = true;
                    Input::Disconnected { link: LINK }
                }
            },
            () = timer => Input::Timer,
        }
    }
}

// -------------------------------------------------------------------------------------------- the socket

/// Hands over all frames that come, and at last that none will come any more.
async fn read_frames(stream: OwnedReadHalf, news: Sender<News>) {
    let mut stream = BufReader::new(stream);
    while let Ok(length) = stream.read_u32_le().await {
        if length > Limits::default().frame {
            break; // checked before there is memory for it: the length is the peer's word
        }
        let mut frame = vec![0; length as usize];
        if stream.read_exact(&mut frame).await.is_err() || news.send(News::Frame(frame.into())).await.is_err() {
            break;
        }
    }
    let _ = news.send(News::Gone).await; // unless the replica is gone before
}

/// Writes all frames, and closes this half of the connection when there will be none.
async fn write_frames(stream: OwnedWriteHalf, mut frames: UnboundedReceiver<Bytes>, news: Sender<News>) {
    let (mut stream, mut gathered) = (BufWriter::new(stream), Vec::new());
    while frames.recv_many(&mut gathered, usize::MAX).await > 0 {
        let bytes = gathered.iter().map(|frame| frame.len() as u64).sum();
        // One flush for all that had gathered: it is a system call.
        let written = async {
            for frame in gathered.drain(..) {
                stream.write_u32_le(frame.len() as u32).await?;
                stream.write_all(&frame).await?;
            }
            stream.flush().await
        };
        if written.await.is_err() || news.send(News::Written(bytes)).await.is_err() {
            break; // the reader tells it
        }
    }
    let _ = stream.shutdown().await;
}

fn entropy() -> Result<[u8; 32], Failure> {
    let mut entropy = [0; 32];
    getrandom::fill(&mut entropy).map_err(|error| format!("the system has no entropy: {error}"))?;
    Ok(entropy)
}
