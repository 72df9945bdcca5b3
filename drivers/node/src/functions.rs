//! A transport of two functions.

use std::io;
use std::thread;

use async_channel::{Receiver, Sender, bounded};
use bytes::Bytes;

use crate::transport::{FrameReceiver, FrameSender, Transport};

/// Frames that wait between a link and the threads that call the functions, each way.
const FRAMES_WAITING: usize = 16;

/// A transport of two functions that may block: one sends a frame, one receives the next. Each is called on a thread of
/// its own, one call at a time.
///
/// ```
/// use antiphon_node::Functions;
/// use std::{io, sync::mpsc};
///
/// let (to_peer, from_us) = mpsc::channel();
/// let (to_us, from_peer) = mpsc::channel();
/// let pair = |sender: mpsc::Sender<bytes::Bytes>, receiver: mpsc::Receiver<bytes::Bytes>| {
///     let send = move |frame| sender.send(frame).map_err(|_| io::ErrorKind::BrokenPipe.into());
///     Functions::new(send, move || Ok(receiver.recv().ok()))
/// };
/// let (here, there) = (pair(to_peer, from_peer), pair(to_us, from_us)); // for `accept` of two nodes
/// # drop((here, there));
/// ```
#[derive(Debug)]
pub struct Functions {
    sender: FunctionSender,
    receiver: FunctionReceiver,
}

/// Gives frames to the thread that sends them.
#[derive(Debug)]
pub struct FunctionSender(Sender<Bytes>);

/// Takes frames from the thread that receives them.
#[derive(Debug)]
pub struct FunctionReceiver(Receiver<io::Result<Bytes>>);

impl Functions {
    /// `send` brings a frame on its way; it is dropped when the link is over. `receive` waits for the next frame, whole and
    /// in order; `None`, when there will be no more. When the link is over it is not called again: whatever ends its wait
    /// ends its thread.
    pub fn new(
        mut send: impl FnMut(Bytes) -> io::Result<()> + Send + 'static,
        mut receive: impl FnMut() -> io::Result<Option<Bytes>> + Send + 'static,
    ) -> Self {
        let (sender, frames) = bounded(FRAMES_WAITING);
        thread::spawn(move || {
            while let Ok(frame) = frames.recv_blocking() {
                if send(frame).is_err() {
                    return; // the channel closes with it, and so does the link
                }
            }
        });
        let (received, receiver) = bounded(FRAMES_WAITING);
        thread::spawn(move || {
            while let Some(frame) = receive().transpose() {
                let is_over = frame.is_err();
                if received.send_blocking(frame).is_err() || is_over {
                    return;
                }
            }
        });
        Self { sender: FunctionSender(sender), receiver: FunctionReceiver(receiver) }
    }
}

impl Transport for Functions {
    type Sender = FunctionSender;
    type Receiver = FunctionReceiver;

    fn split(self) -> (FunctionSender, FunctionReceiver) {
        (self.sender, self.receiver)
    }
}

impl FrameSender for FunctionSender {
    async fn send(&mut self, frame: Bytes) -> io::Result<()> {
        self.0.send(frame).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    async fn close(&mut self) -> io::Result<()> {
        self.0.close(); // what is in it is still sent
        Ok(())
    }
}

impl FrameReceiver for FunctionReceiver {
    async fn receive(&mut self) -> io::Result<Option<Bytes>> {
        self.0.recv().await.ok().transpose()
    }
}
