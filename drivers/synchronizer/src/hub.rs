//! Nodes in a hub: in one process, and by a name.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use antiphon_memory::seat::Redial;
use antiphon_memory::{Hub, Line};
use antiphon_node::{Error, FrameReceiver, FrameSender, LinkOptions, Node, Transport};
use async_channel::{Sender, unbounded};
use async_io::Timer;
use bytes::Bytes;
use futures_lite::future::or;

/// The wait before two whose session ended are connected again.
const REDIAL_WAIT: Duration = Duration::from_millis(500);

/// A node's stay in a hub. It ends when this is dropped, or the node stops.
#[derive(Debug)]
#[must_use = "the node leaves the hub when this is dropped"]
pub struct Member {
    /// Closes when it is dropped.
    _stay: Sender<()>,
}

/// Lets a node join a hub: it gets a link with each participant, also with those to come, and again when one breaks.
/// Links of a hub have no upstream: stores need none.
///
/// # Errors
/// If the node has stopped.
pub fn join(node: &Node, hub: &Hub) -> Result<Member, Error> {
    let (stay, over) = unbounded();
    let mut seat = hub.seat();
    node.spawn({
        let node = node.clone();
        async move {
            let (broken, ended) = unbounded();
            loop {
                let line = async { Next::Line(seat.next().await) };
                let redial = async { ended.recv().await.map_or(Next::Over, Next::Redial) };
                let end = async {
                    let _ = over.recv().await;
                    Next::Over
                };
                let done = match or(end, or(redial, line)).await {
                    Next::Line(line) => {
                        let halves = Halves(Arc::new(Whole::new(line, broken.clone())));
                        node.accept(halves, LinkOptions::default()).map(drop)
                    }
                    Next::Redial(redial) => node.spawn(async move {
                        Timer::after(REDIAL_WAIT).await;
                        redial.connect();
                    }),
                    Next::Over => return,
                };
                if done.is_err() {
                    return;
                }
            }
        }
    })?;
    Ok(Member { _stay: stay })
}

enum Next {
    Line(Line),
    Redial(Redial),
    Over,
}

/// A line that says when it is over.
struct Whole {
    line: Option<Line>,
    redial: Option<Redial>,
    broken: Sender<Redial>,
}

impl Whole {
    fn new(line: Line, broken: Sender<Redial>) -> Self {
        Self { redial: line.redial(), broken, line: Some(line) }
    }

    fn line(&self) -> io::Result<&Line> {
        self.line.as_ref().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        self.line = None; // before the two are connected again
        self.redial.take().into_iter().for_each(|redial| drop(self.broken.try_send(redial)));
    }
}

struct Halves(Arc<Whole>);
struct Sending(Arc<Whole>);
struct Receiving(Arc<Whole>);

impl Transport for Halves {
    type Sender = Sending;
    type Receiver = Receiving;

    fn split(self) -> (Sending, Receiving) {
        (Sending(self.0.clone()), Receiving(self.0))
    }
}

impl FrameSender for Sending {
    async fn send(&mut self, frame: Bytes) -> io::Result<()> {
        self.0.line()?.send(frame);
        Ok(())
    }

    async fn close(&mut self) -> io::Result<()> {
        self.0.line()?.close();
        Ok(())
    }
}

impl FrameReceiver for Receiving {
    async fn receive(&mut self) -> io::Result<Option<Bytes>> {
        Ok(self.0.line()?.receive().await)
    }
}
