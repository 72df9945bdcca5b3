//! A place in a hub for drivers that run replicas themselves.

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use antiphon::replica::LinkId;
use async_channel::{Receiver, Sender, unbounded};
use bytes::Bytes;

use crate::hub::{Hub, Mail, MemberId, Membership, Peer};

/// A place in a [`Hub`], with a [`Line`] to each participant. Dropping it leaves.
///
/// Nothing arrives on the lines unless somebody waits for the [`next`](Self::next) one.
#[derive(Debug)]
pub struct Seat {
    membership: Arc<Membership>,
    mail: VecDeque<Mail>,
    lines: BTreeMap<LinkId, Sender<Bytes>>,
}

/// A way to one participant. It lasts until either end drops it, or leaves the hub.
#[derive(Debug)]
pub struct Line {
    membership: Arc<Membership>,
    link: LinkId,
    peer: Peer,
    frames: Receiver<Bytes>,
}

impl Hub {
    /// A place in the hub, for a driver that runs a replica itself.
    pub fn seat(&self) -> Seat {
        Seat { membership: Arc::new(self.enter()), mail: VecDeque::new(), lines: BTreeMap::new() }
    }
}

impl Seat {
    /// The next line: to a participant that was here before, or has come, or was connected again.
    pub async fn next(&mut self) -> Line {
        loop {
            while let Some(mail) = self.mail.pop_front() {
                if let Some(line) = self.take(mail) {
                    return line;
                }
            }
            let mailbox = &self.membership.mailbox;
            self.mail = poll_fn(|context| match mailbox.poll_collect(context) {
                mail if mail.is_empty() => Poll::Pending,
                mail => Poll::Ready(mail),
            })
            .await;
        }
    }

    fn take(&mut self, mail: Mail) -> Option<Line> {
        match mail {
            Mail::Connected { link, peer } => {
                // As much waits here as the session's credit lets the peer send.
                let (sender, frames) = unbounded();
                self.lines.insert(link, sender);
                return Some(Line { membership: self.membership.clone(), link, peer, frames });
            }
            Mail::Disconnected { link } => drop(self.lines.remove(&link)),
            Mail::Frame { link, frame } => {
                if self.lines.get(&link).is_some_and(|line| line.try_send(frame).is_err()) {
                    self.lines.remove(&link); // this end has dropped it
                }
            }
        }
        None
    }
}

impl Line {
    /// Sends a frame. If the other end is gone, so is the frame.
    pub fn send(&self, frame: Bytes) {
        if let Some(mailbox) = self.peer.mailbox.upgrade() {
            mailbox.post(Mail::Frame { link: self.link, frame });
        }
    }

    /// The next frame; `None`, when the line is over.
    pub async fn receive(&self) -> Option<Bytes> {
        self.frames.recv().await.ok()
    }

    /// Ends the line at both ends: what was sent before is still received.
    pub fn close(&self) {
        self.membership.disconnect(self.peer.id, self.link);
        self.frames.close();
    }

    /// What connects the two again once this line is over. Exactly one of its ends has one: the participant that has been
    /// in the hub for longer.
    pub fn redial(&self) -> Option<Redial> {
        let is_ours = self.membership.id < self.peer.id;
        is_ours.then(|| Redial { membership: self.membership.clone(), peer: self.peer.id })
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.close();
    }
}

/// Connects two participants again.
#[derive(Debug)]
pub struct Redial {
    membership: Arc<Membership>,
    peer: MemberId,
}

impl Redial {
    /// Connects them, unless one of them has left.
    pub fn connect(self) {
        self.membership.connect(self.peer);
    }
}
