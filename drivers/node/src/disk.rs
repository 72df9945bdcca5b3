//! The storage on a thread of its own: what has gathered while it was at work is carried out together.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use antiphon::op::DocumentId;
use antiphon::replica::Ticket;
use antiphon::rng::Rng;
use antiphon::storage::{Continuity, Identity, Reply, Request, Storage};
use atomic_waker::AtomicWaker;

/// What went wrong in a storage, in its words.
pub(crate) type Outcome<T> = Result<T, String>;

/// What is said of a storage whose thread is no more.
pub(crate) const GONE: &str = "the storage's thread has ended";

/// Where an answer goes that somebody waits for.
pub(crate) type Answer<T> = async_channel::Sender<Outcome<T>>;

/// What the thread is to do.
#[derive(Debug)]
pub(crate) enum Job {
    /// The replica asks.
    Replica(Ticket, Request),
    /// The app asks.
    App(Question),
}

/// What the app wants to know of what is stored.
#[derive(Debug)]
pub(crate) enum Question {
    Request(Request, Answer<Reply>),
    Documents(Answer<Vec<DocumentId>>),
}

/// The way to the thread. When all of these are gone, it syncs and ends.
pub(crate) type Jobs = Sender<Job>;

/// What the storage has answered and the replica has not yet heard.
#[derive(Debug, Default)]
pub(crate) struct Replies {
    replies: Mutex<Vec<(Ticket, Outcome<Reply>)>>,
    /// Wakes the driver.
    pub(crate) bell: AtomicWaker,
}

impl Replies {
    pub(crate) fn push(&self, replies: impl IntoIterator<Item = (Ticket, Outcome<Reply>)>) {
        self.replies.lock().unwrap_or_else(PoisonError::into_inner).extend(replies);
        self.bell.wake();
    }

    /// Exchanges what has gathered for an empty list.
    pub(crate) fn swap(&self, empty: &mut Vec<(Ticket, Outcome<Reply>)>) {
        std::mem::swap(&mut *self.replies.lock().unwrap_or_else(PoisonError::into_inner), empty);
    }
}

/// A storage at work.
#[derive(Debug)]
pub(crate) struct Disk<S> {
    pub(crate) jobs: Jobs,
    /// Comes when the thread ends.
    pub(crate) end: async_channel::Receiver<Outcome<S>>,
}

/// Opens the storage on a new thread, and lets it work there.
pub(crate) async fn start<S: Storage + Send + 'static>(
    mut storage: S,
    continuity: Continuity,
    mut entropy: Rng,
    replies: Arc<Replies>,
) -> Outcome<(Identity, Disk<S>)> {
    let (jobs, inbox) = channel();
    let (opened, identity) = async_channel::bounded(1);
    let (ended, end) = async_channel::bounded(1);
    let thread = thread::Builder::new().name("antiphon-storage".into());
    let spawned = thread.spawn(move || {
        let outcome = storage.open(continuity, &mut entropy).map_err(|error| error.to_string());
        let works = outcome.is_ok();
        if opened.try_send(outcome).is_err() || !works {
            return; // nobody waits any more, or there is nothing to work with
        }
        work(&mut storage, &inbox, &replies);
        let synced = storage.sync().map_err(|error| error.to_string());
        // If nobody wants it back, it is closed here.
        let _ = ended.try_send(synced.map(|()| storage));
    });
    spawned.map_err(|error| format!("no thread for the storage: {error}"))?;
    let gone = |_| Err(String::from("the storage panicked while it was opened"));
    let identity = identity.recv().await.unwrap_or_else(gone)?;
    Ok((identity, Disk { jobs, end }))
}

fn work<S: Storage>(storage: &mut S, inbox: &Receiver<Job>, replies: &Replies) {
    let (mut tickets, mut requests, mut questions) = (Vec::new(), Vec::new(), Vec::new());
    while let Ok(first) = inbox.recv() {
        for job in [first].into_iter().chain(inbox.try_iter()) {
            match job {
                Job::Replica(ticket, request) => {
                    tickets.push(ticket);
                    requests.push(request);
                }
                Job::App(question) => questions.push(question),
            }
        }
        if !requests.is_empty() {
            let outcomes = storage.execute_all(&requests);
            requests.clear();
            let outcomes = outcomes.into_iter().map(|outcome| outcome.map_err(|error| error.to_string()));
            replies.push(tickets.drain(..).zip(outcomes));
        }
        // After the writes, so that the app sees at least what it was told of.
        questions.drain(..).for_each(|question| answer(storage, question));
    }
}

/// Who no longer waits for an answer does not get it.
fn answer<S: Storage>(storage: &mut S, question: Question) {
    match question {
        Question::Request(request, answer) => {
            let _ = answer.try_send(storage.execute(&request).map_err(|error| error.to_string()));
        }
        Question::Documents(answer) => {
            let _ = answer.try_send(storage.documents().map_err(|error| error.to_string()));
        }
    }
}
