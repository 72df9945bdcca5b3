//! What a replica tells its app, and what the app wants of it, in words.

use antiphon::codes::Code;
use antiphon::op::{DocumentId, ReplicaId};
use antiphon::replica::{Event, Input, LinkId, Misuse};
use antiphon::session::{self, By, Ending};
use antiphon::snapshot::SnapshotId;
use antiphon::wire::Durability;

use crate::frame::{Field, access, bytes_preview, with_reason};

/// How something is marked.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Sign {
    /// A process starts.
    Start,
    /// A process ends.
    End,
    /// A user does something.
    User,
    /// The app is told something.
    Told,
    /// The app is told something good.
    Good,
    /// The app is told something that is not as usual, and is dealt with.
    Trouble,
    /// Something went wrong that does not mend itself.
    Bad,
    /// A disk did something else than it was asked.
    Disk,
    /// A link came or went, or is another.
    Link,
    /// A clock was set.
    Clock,
    /// A timer was due.
    Timer,
}

/// Something that an app was told or wanted, in words.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EventWords {
    /// One word for what it is: `Applied`, `Append`.
    pub kind: &'static str,
    /// How it is marked.
    pub sign: Sign,
    /// The link that it is about, if it is about one.
    pub link: Option<LinkId>,
    /// The document that it is about, if it is about one.
    pub document: Option<DocumentId>,
    /// What it says beside that.
    pub fields: Vec<Field>,
}

impl EventWords {
    fn of(kind: &'static str, sign: Sign) -> Self {
        Self { kind, sign, link: None, document: None, fields: Vec::new() }
    }

    fn about(self, document: &DocumentId) -> Self {
        Self { document: Some(document.clone()), ..self }
    }

    fn with(self, link: LinkId) -> Self {
        Self { link: Some(link), ..self }
    }

    fn say(mut self, name: &'static str, what: impl ToString) -> Self {
        self.fields.push((name, what.to_string()));
        self
    }

    fn because(self, reason: &str) -> Self {
        Self { fields: with_reason(self.fields, reason.to_owned()), ..self }
    }

    /// What an app wanted and was not to have.
    pub fn declined(misuse: &Misuse) -> Self {
        Self::of("Declined", Sign::Bad).say("why", misuse)
    }
}

/// Puts what a replica tells its app into words.
pub fn event_words(event: &Event) -> EventWords {
    use Sign::{Bad, Good, Told, Trouble};
    let of = EventWords::of;
    match event {
        Event::Connected { link, replica, durability } => live(replica, *durability).with(*link),
        Event::Disconnected { link, ending } => {
            let over = || of("Session over", Sign::Link).say("why", "the link went away under it");
            ending.as_ref().map_or_else(over, ended).with(*link)
        }
        Event::Opened { document, heads, tail, snapshot } => {
            let words = of("Opened", Told).about(document).say("tail", tail).say("authors", heads.len());
            match snapshot {
                Some(id) => words.say("snapshot", snapshot_words(id)),
                None => words,
            }
        }
        Event::Compacted { document, horizon } => of("Compacted", Told).about(document).say("below", horizon),
        Event::Applied { document, id, position } => {
            of("Applied", Told).about(document).say("own ops up to seq", id.seq).say("tail", position)
        }
        Event::Received { batch } => of("Received", Told)
            .about(&batch.document)
            .say("entries", batch.entries.len())
            .say("positions", format!("{} to {}", batch.position, batch.tail())),
        Event::Acknowledged { link, document, position } => acknowledged(*position).with(*link).about(document),
        Event::InStep { link, document, digest } => {
            of("In step", Good).with(*link).about(document).say("heads", format!("{digest:016x}"))
        }
        Event::Forked { link, document, authors } => forked(authors).with(*link).about(document),
        Event::Renewed { replica, before } => of("Renewed", Trouble).say("was", before).say("is now", replica),
        Event::Orphaned { document, ops } => of("Orphaned", Bad).about(document).say("ops", ops.len()),
        Event::Mended { document } => of("Mended", Good).about(document),
        Event::Failed { document, reason } => of("Failed", Bad).about(document).because(reason),
        Event::Recovered { document, seq, lost } => {
            of("Recovered", Good).about(document).say("own ops up to seq", seq).say("bodies lost", lost.len())
        }
        Event::Closed { link, document, code, reason, by } => closed(*code, reason, *by).with(*link).about(document),
    }
}

/// Puts what a session tells its host into words. What it calls by [a number](session::Event::number) is left to be named.
pub fn session_event_words(event: &session::Event) -> EventWords {
    use session::Event;
    let of = EventWords::of;
    match event {
        Event::Connected { replica, durability } => live(replica, *durability),
        Event::PeerOpened { document, access: to, .. } => {
            of("Opened by the peer", Sign::Told).about(document).say("to", access(*to))
        }
        Event::Opened { own, .. } => of("Opened", Sign::Told).say("the peer holds own ops up to seq", own.seq),
        Event::Acknowledged { acked, .. } => acknowledged(*acked),
        Event::InStep { .. } => of("In step", Sign::Good),
        Event::SnapshotOffered { snapshot, .. } => {
            of("Snapshot offered", Sign::Told).say("snapshot", snapshot_words(snapshot))
        }
        Event::Forked { authors, .. } => forked(authors),
        Event::DocumentClosed { code, reason, by, .. } => closed(*code, reason, *by),
        Event::Released { document } => of("Released", Sign::Told).about(document),
        Event::Closed(ending) => ended(ending),
    }
}

// -------------------------------------------------------------------------------------------- what both tell

fn live(replica: &ReplicaId, durability: Durability) -> EventWords {
    let words = EventWords::of("Live session", Sign::Link).say("replica", replica);
    words.say("acknowledges", format!("{durability:?}").to_lowercase())
}

fn ended(Ending { code, reason, by, .. }: &Ending) -> EventWords {
    EventWords::of("Session over", Sign::Link).say("code", code).because(reason).say("said by", who(*by))
}

fn acknowledged(position: u64) -> EventWords {
    EventWords::of("Acknowledged", Sign::Told).say("durable there", format!("below {position}"))
}

fn forked(authors: &[ReplicaId]) -> EventWords {
    let authors: Vec<_> = authors.iter().map(ToString::to_string).collect();
    EventWords::of("Forked", Sign::Bad).say("authors", authors.join(", "))
}

fn closed(code: Code, reason: &str, by: By) -> EventWords {
    EventWords::of("Closed", Sign::Trouble).say("code", code).because(reason).say("said by", who(by))
}

/// Which snapshot.
pub(crate) fn snapshot_words(id: &SnapshotId) -> String {
    let hash: String = id.hash[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{hash} of {} bytes", id.bytes)
}

fn who(by: By) -> &'static str {
    match by {
        By::Us => "this end",
        By::Peer => "the other end",
    }
}

// -------------------------------------------------------------------------------------------- what apps want

/// Puts what an app wants of its replica into words. Inputs that are not the app's are none of these.
pub fn input_words(input: &Input) -> Option<EventWords> {
    let of = |kind| EventWords::of(kind, Sign::User);
    Some(match input {
        Input::Open { document, options } => of("Open").about(document).say("to", access(options.access)),
        Input::Close { document } => of("Close").about(document),
        Input::Append { document, bodies } => {
            let words = of("Append").about(document).say("ops", bodies.len());
            match bodies.first() {
                Some(body) => words.say(if bodies.len() > 1 { "first body" } else { "body" }, bytes_preview(body)),
                None => words,
            }
        }
        Input::ImmediateAck { document, link } => of("Wait").about(document).with(*link),
        Input::Compact { document, position, body } => {
            of("Compact").about(document).say("below", position).say("to", format!("{} bytes", body.len()))
        }
        Input::Reset { document, link } => of("Reset").about(document).with(*link),
        Input::Disconnect { link, code, reason, .. } => of("Disconnect").with(*link).say("code", code).because(reason),
        Input::Connected { .. }
        | Input::Disconnected { .. }
        | Input::Received { .. }
        | Input::Writable { .. }
        | Input::Timer
        | Input::Storage { .. }
        | Input::Answer { .. } => return None,
    })
}
