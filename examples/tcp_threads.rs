//! Two replicas that talk over a real TCP connection, with nothing but threads: each has one for itself, one that reads
//! its socket and one that writes it. Frames go with their length before them.

// An example is a driver: here clocks are read.
#![expect(clippy::disallowed_methods, reason = "the core is handed the time, and this is where it comes from")]

use std::error::Error;
use std::io::{self, BufReader, BufWriter, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

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

/// What each of the two writes.
const OPS: u64 = 1000;

/// The only link that a replica has here.
const LINK: LinkId = LinkId(1);

/// How much may wait to be written to a socket. Beyond, the session holds back what it has to send.
const OUTBOX_BYTES: u64 = 256 << 10;

/// How many frames may wait for a replica. Beyond, its reader reads no more, and TCP holds the peer back.
const INBOX_FRAMES: usize = 64;

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> ExitCode {
    match run() {
        Ok((ops, heads)) => {
            println!("in step: 2 replicas, {ops} ops, heads {heads:016x}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("tcp_threads: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(u64, u64), Failure> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    // Should the client fail, main ends, and this thread with it.
    let server = thread::spawn(move || Node::new(listener.accept()?.0)?.run(false));
    let client = Node::new(TcpStream::connect(address)?)?.run(true)?;
    let server = server.join().map_err(|_| "the server's thread panicked")??;
    if client == server {
        Ok(client)
    } else {
        Err(format!("the client holds {client:x?}, the server {server:x?}").into())
    }
}

// -------------------------------------------------------------------------------------------- the replica

/// What comes to a replica from its other threads.
enum News {
    Frame(Bytes),
    /// So many bytes of frames have been written.
    Written(u64),
    /// The connection is closed, or broken.
    Gone,
}

struct Node {
    replica: Replica,
    storage: MemoryStorage,
    document: DocumentId,
    epoch: Instant,
    inbox: Receiver<News>,
    outbox: Sender<Bytes>,
    /// Bytes in the outbox.
    queued: u64,
    /// Both ends hold everything that both write.
    complete: bool,
    /// The session is over.
    over: bool,
}

impl Node {
    fn new(stream: TcpStream) -> Result<Self, Failure> {
        stream.set_nodelay(true)?; // frames are batches already
        let (news, inbox) = sync_channel(INBOX_FRAMES);
        let (outbox, frames) = channel();
        let (reader, writer) = (BufReader::new(stream.try_clone()?), stream);
        thread::spawn({
            let news = news.clone();
            move || read_frames(reader, &news)
        });
        thread::spawn(move || write_frames(&writer, &frames, &news));

        let mut storage = MemoryStorage::new();
        let identity = storage.open(Continuity::Proven, &mut Rng::from_entropy(entropy()?))?;
        let replica = Replica::new(Config::default(), identity, entropy()?);
        let (document, epoch) = ("notes".parse()?, Instant::now());
        Ok(Self { replica, storage, document, epoch, inbox, outbox, queued: 0, complete: false, over: false })
    }

    /// Writes, gets in step, and says how many ops the storage holds and what the digest of its heads is.
    fn run(mut self, says_goodbye: bool) -> Result<(u64, u64), Failure> {
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
                self.next_input()
            };
            self.input(input)?;
        }
        self.carry_out()?; // how far the peer's log is held is stored at the end
        self.hang_up();
        self.storage.sync()?;
        let stored = self.storage.document(&document)?;
        Ok((stored.tail, stored.heads.digest()))
    }

    fn input(&mut self, input: Input) -> Result<(), Misuse> {
        let micros = u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.replica.handle(Moment::from_micros(micros), input)
    }

    /// Does what the replica wants done, until it wants nothing.
    fn carry_out(&mut self) -> Result<(), Failure> {
        while let Some(output) = self.replica.poll() {
            match output {
                Output::Transmit { frame, .. } => {
                    self.queued += frame.len() as u64;
                    // If the writer is gone, so is the link: that news is in the inbox.
                    let _ = self.outbox.send(frame);
                }
                Output::Disconnect { .. } => self.over = true,
                Output::Storage { ticket, request } => {
                    let reply = self.storage.execute(&request).map_err(|error| error.to_string());
                    self.input(Input::Storage { ticket, reply })?;
                }
                // Only with Admission::Ask.
                Output::Ask { ticket, .. } => self.input(Input::Answer { ticket, answer: Ok(Access::Write) })?,
                Output::Event(event) => self.on_event(event)?,
            }
        }
        Ok(())
    }

    fn on_event(&mut self, event: Event) -> Result<(), Failure> {
        match event {
            Event::InStep { document, .. } => {
                let tail = self.replica.document(&document).map_or(0, |(_, tail)| tail);
                self.complete = tail == 2 * OPS;
                Ok(())
            }
            Event::Closed { code, reason, .. } => Err(format!("the document was closed: {code}, {reason}").into()),
            Event::Failed { reason, .. } => Err(format!("the storage failed: {reason}").into()),
            _ => Ok(()),
        }
    }

    /// Blocks until there is news, or a timer is due.
    fn next_input(&mut self) -> Input {
        let due = self.replica.deadline().map(|due| Duration::from_micros(due.as_micros()));
        let wait = due.map_or(Duration::MAX, |due| due.saturating_sub(self.epoch.elapsed()));
        match self.inbox.recv_timeout(wait) {
            Ok(News::Frame(frame)) => Input::Received { link: LINK, frame },
            Ok(News::Written(bytes)) => {
                self.queued -= bytes;
                Input::Writable { link: LINK, bytes: OUTBOX_BYTES.saturating_sub(self.queued) }
            }
            Ok(News::Gone) | Err(RecvTimeoutError::Disconnected) => {
                self.over = true;
                Input::Disconnected { link: LINK }
            }
            Err(RecvTimeoutError::Timeout) => Input::Timer,
        }
    }

    /// Lets the writer finish and close its half, and waits a little for the peer to close the other: a socket that is
    /// dropped with something unread in it takes back what it has sent.
    fn hang_up(&mut self) {
        self.outbox = channel().0;
        let end = Instant::now() + Duration::from_secs(1);
        while let Ok(News::Frame(_) | News::Written(_)) =
            self.inbox.recv_timeout(end.saturating_duration_since(Instant::now()))
        {}
    }
}

// -------------------------------------------------------------------------------------------- the socket

/// Hands over all frames that come, and at last that none will come any more.
fn read_frames(mut stream: impl Read, news: &SyncSender<News>) {
    while let Ok(frame) = read_frame(&mut stream, Limits::default().frame) {
        if news.send(News::Frame(frame)).is_err() {
            return; // the replica is gone
        }
    }
    let _ = news.send(News::Gone);
}

fn read_frame(stream: &mut impl Read, max: u32) -> io::Result<Bytes> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    if length > max {
        // Checked before there is memory for it: the length is the peer's word.
        return Err(ErrorKind::InvalidData.into());
    }
    let mut frame = vec![0; length as usize];
    stream.read_exact(&mut frame)?;
    Ok(frame.into())
}

/// Writes all frames, and closes this half of the connection when there will be none.
fn write_frames(stream: &TcpStream, frames: &Receiver<Bytes>, news: &SyncSender<News>) {
    let mut out = BufWriter::new(stream);
    while let Ok(first) = frames.recv() {
        let mut bytes = 0;
        let gathered = [first].into_iter().chain(frames.try_iter()).try_for_each(|frame| {
            bytes += frame.len() as u64;
            write_frame(&mut out, &frame)
        });
        // One flush for all that had gathered: it is a system call.
        if gathered.and_then(|()| out.flush()).is_err() || news.send(News::Written(bytes)).is_err() {
            break; // the reader tells it
        }
    }
    let _ = stream.shutdown(Shutdown::Write);
}

fn write_frame(out: &mut impl Write, frame: &[u8]) -> io::Result<()> {
    let length = u32::try_from(frame.len()).map_err(|_| ErrorKind::InvalidData)?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(frame)
}

fn entropy() -> Result<[u8; 32], Failure> {
    let mut entropy = [0; 32];
    getrandom::fill(&mut entropy).map_err(|error| format!("the system has no entropy: {error}"))?;
    Ok(entropy)
}
