//! A replica's inputs and outputs as text, with the names that numbers and tickets stand for.

use std::collections::BTreeMap;
use std::fmt;

use antiphon::op::DocumentId;
use antiphon::replica::{Event, Input, LinkId, Output, Question, Ticket};
use antiphon::session::Transport;
use antiphon::storage::{Reply, Request, Transaction};
use bytes::Bytes;

use crate::text::{FrameText, Named, access, because, frame_text};

/// Something that went into a replica or came out of it, in words.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Line {
    /// `<-` for a frame received, `->` for one sent, `=>` for what is asked or told, and nothing for what else happens.
    pub arrow: &'static str,
    /// The link, if it is about one.
    pub link: Option<LinkId>,
    /// The document, if it is about one whose name is known.
    pub document: Option<DocumentId>,
    /// One word for what it is: the kind of the message, `Append`, `Storage`.
    pub kind: &'static str,
    /// The rest.
    pub text: String,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.arrow.is_empty() { "  " } else { self.arrow })?;
        if let Some(LinkId(link)) = self.link {
            write!(f, " [{link}]")?;
        }
        write!(f, " {}", self.kind)?;
        if let Some(document) = &self.document {
            write!(f, " {document}")?;
        }
        if self.text.is_empty() { Ok(()) } else { write!(f, " {}", self.text) }
    }
}

/// Puts a replica's inputs and outputs into words, and remembers what numbers and tickets stand for. It must be shown all
/// of them, in order; where outputs are missing, as in a trace that can't be replayed, some names stay numbers.
#[derive(Clone, Debug, Default)]
pub struct Transcript {
    links: BTreeMap<LinkId, Names>,
    own: BTreeMap<u32, DocumentId>,
    asked: BTreeMap<Ticket, Asked>,
}

/// What is known of a link.
#[derive(Clone, Debug, Default)]
struct Names {
    datagram: bool,
    /// The documents by the peer's numbers.
    peer: BTreeMap<u32, DocumentId>,
}

#[derive(Clone, Debug)]
struct Asked {
    link: Option<LinkId>,
    document: Option<DocumentId>,
    what: &'static str,
}

impl Transcript {
    /// Nothing is known yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Something that happened to the replica.
    pub fn input(&mut self, input: &Input) -> Line {
        let line = |link: Option<&LinkId>, document: Option<&DocumentId>, kind, text: String| Line {
            arrow: "",
            link: link.copied(),
            document: document.cloned(),
            kind,
            text,
        };
        match input {
            Input::Connected { link, transport, token, upstream } => {
                let datagram = matches!(transport, Transport::Datagram { .. });
                self.links.insert(*link, Names { datagram, peer: BTreeMap::new() });
                let mut text = String::from(if *upstream { "to upstream, over " } else { "over " });
                text.push_str(if datagram { "datagrams" } else { "a reliable transport" });
                text.push_str(if token.is_some() { ", with a token" } else { "" });
                line(Some(link), None, "Connected", text)
            }
            Input::Disconnected { link } => {
                self.links.remove(link);
                line(Some(link), None, "Disconnected", String::new())
            }
            Input::Received { link, frame } => self.frame("<-", *link, frame),
            Input::Writable { link, bytes } => line(Some(link), None, "Writable", format!("{bytes} bytes")),
            Input::Timer => line(None, None, "Timer", String::new()),
            Input::Open { document, options } => {
                line(None, Some(document), "Open", format!("to {}", access(options.access)))
            }
            Input::Close { document } => line(None, Some(document), "Close", String::new()),
            Input::Append { document, bodies } => {
                let bytes: usize = bodies.iter().map(Bytes::len).sum();
                line(None, Some(document), "Append", format!("{} ops, {bytes} bytes", bodies.len()))
            }
            Input::ImmediateAck { document, link } => {
                line(Some(link), Some(document), "ImmediateAck", String::from("the app waits for it"))
            }
            Input::Storage { ticket, reply } => {
                let asked = self.asked.remove(ticket);
                let what = asked.as_ref().map_or("answers", |asked| asked.what);
                let text = match reply {
                    Ok(reply) => format!("{what}: {}", reply_text(reply)),
                    Err(error) => format!("{what} failed: {error}"),
                };
                let document = asked.and_then(|asked| asked.document);
                line(None, document.as_ref(), "Storage", text)
            }
            Input::Answer { ticket, answer } => {
                let asked = self.asked.remove(ticket);
                let text = match answer {
                    Ok(granted) => format!("granted, to {}", access(*granted)),
                    Err((code, reason)) => because(&code.to_string(), reason),
                };
                let (link, document) = asked.map_or((None, None), |asked| (asked.link, asked.document));
                line(link.as_ref(), document.as_ref(), "Answer", text)
            }
            Input::Reset { document, link } => line(Some(link), Some(document), "Reset", String::new()),
            Input::Disconnect { link, code, reason, .. } => {
                line(Some(link), None, "Disconnect", because(&code.to_string(), reason))
            }
        }
    }

    /// Something that the replica wants done.
    pub fn output(&mut self, output: &Output) -> Line {
        let line = |link: Option<LinkId>, document: Option<DocumentId>, kind, text| Line {
            arrow: "=>",
            link,
            document,
            kind,
            text,
        };
        match output {
            Output::Transmit { link, frame } => self.frame("->", *link, frame),
            Output::Disconnect { link, ending } => {
                line(Some(*link), None, "Disconnect", because(&ending.code.to_string(), &ending.reason))
            }
            Output::Storage { ticket, request } => {
                let (document, what, text) = request_text(request);
                self.asked.insert(*ticket, Asked { link: None, document: document.clone(), what });
                line(None, document, "Storage", format!("{what}{text}"))
            }
            Output::Ask { ticket, question } => {
                let (link, document, text) = match question {
                    Question::Peer { link, replica, token } => {
                        let shows = if token.is_some() { ", who shows a token" } else { "" };
                        (*link, None, format!("whether {replica} may connect{shows}"))
                    }
                    Question::Document { link, replica, document, access: wanted, .. } => {
                        (*link, Some(document.clone()), format!("whether {replica} may {} it", access(*wanted)))
                    }
                };
                let asked = Asked { link: Some(link), document: document.clone(), what: "answers" };
                self.asked.insert(*ticket, asked);
                line(Some(link), document, "Ask", text)
            }
            Output::Event(event) => {
                let (link, document, kind, text) = event_text(event);
                line(link, document, kind, text)
            }
        }
    }

    fn frame(&mut self, arrow: &'static str, link: LinkId, frame: &Bytes) -> Line {
        let datagram = self.links.get(&link).is_some_and(|names| names.datagram);
        let FrameText { kind, document, number, mut text } = frame_text(frame, datagram);
        let sent = arrow == "->";
        let names = self.links.entry(link).or_default();
        if let (Some(number), Some(Named::Document(document))) = (number, &document) {
            let numbered = if sent { &mut self.own } else { &mut names.peer };
            numbered.insert(number, document.clone());
        }
        let known = |number: u32, of_us: bool| {
            let numbered = if of_us { &self.own } else { &names.peer };
            (numbered.get(&number).cloned(), number)
        };
        let (document, number) = match document {
            None => (None, None),
            Some(Named::Document(document)) => (Some(document), None),
            Some(Named::OfSender(number)) => {
                let (document, number) = known(number, sent);
                (document, Some(number))
            }
            Some(Named::OfReceiver(number)) => {
                let (document, number) = known(number, !sent);
                (document, Some(number))
            }
        };
        if let (None, Some(number)) = (&document, number) {
            text = format!("(document {number}) {text}");
        }
        Line { arrow, link: Some(link), document, kind, text }
    }
}

fn reply_text(reply: &Reply) -> String {
    match reply {
        Reply::Document(stored) => format!("tail {}, {} authors", stored.tail, stored.heads.len()),
        Reply::Cursor(None) => String::from("no cursor"),
        Reply::Cursor(Some(cursor)) => format!("{} of {:?}", cursor.position, cursor.timeline),
        Reply::Entries(entries) => {
            let bytes: usize = entries.iter().map(|entry| entry.op.body.wire_len()).sum();
            format!("{} entries, {bytes} bytes", entries.len())
        }
        Reply::Compared(comparison) => format!("from {}, {} forks", comparison.from, comparison.forks.len()),
        Reply::Chains(chains) => format!("{} chains", chains.len()),
        Reply::Written => String::from("done"),
    }
}

fn request_text(request: &Request) -> (Option<DocumentId>, &'static str, String) {
    let (document, what, text) = match request {
        Request::Open(document) => (document, "open", String::new()),
        Request::Cursor { document, peer } => (document, "cursor", format!(" on {peer}")),
        Request::Read { document, from, max_cost } => (document, "read", format!(" from {from}, cost {max_cost}")),
        Request::ReadAside { document, from, .. } => (document, "read aside", format!(" from {from}")),
        Request::Compare { document, heads } => (document, "compare", format!(" with {} heads", heads.len())),
        Request::Chains { document, ids } => (document, "chains", format!(" at {} ops", ids.len())),
        Request::Write(Transaction::Identity(identity)) => {
            return (None, "write", format!(" identity {}", identity.replica));
        }
        Request::Write(Transaction::Append(batch)) => {
            let text =
                format!(" {} entries at {}, {} cursors", batch.entries.len(), batch.position, batch.cursors.len());
            (&batch.document, "write", text)
        }
        Request::Write(Transaction::Reset { document, .. }) => (document, "write", String::from(" a new beginning")),
    };
    (Some(document.clone()), what, text)
}

fn event_text(event: &Event) -> (Option<LinkId>, Option<DocumentId>, &'static str, String) {
    let of =
        |link: Option<LinkId>, document: &DocumentId, kind, text: String| (link, Some(document.clone()), kind, text);
    match event {
        Event::Connected { link, replica, .. } => (Some(*link), None, "Live session", format!("with {replica}")),
        Event::Disconnected { link, ending } => {
            let why = ending.as_ref().map(|ending| because(&ending.code.to_string(), &ending.reason));
            (Some(*link), None, "Session over", why.unwrap_or_else(|| String::from("the link is gone")))
        }
        Event::Opened { document, tail, .. } => of(None, document, "Opened", format!("tail {tail}")),
        Event::Applied { document, id, position } => {
            of(None, document, "Applied", format!("own ops up to seq {}, tail {position}", id.seq))
        }
        Event::Received { batch } => {
            let text = format!("{} entries at {}", batch.entries.len(), batch.position);
            of(None, &batch.document, "Received", text)
        }
        Event::Acknowledged { link, document, position } => {
            of(Some(*link), document, "Acknowledged", format!("below {position}"))
        }
        Event::InStep { link, document, digest } => {
            of(Some(*link), document, "In step", format!("heads {digest:016x}"))
        }
        Event::Forked { link, document, authors } => {
            of(Some(*link), document, "Forked", format!("{} authors", authors.len()))
        }
        Event::Renewed { replica, before } => (None, None, "Renewed", format!("{before} is now {replica}")),
        Event::Orphaned { document, ops } => of(None, document, "Orphaned", format!("{} ops", ops.len())),
        Event::Mended { document } => of(None, document, "Mended", String::new()),
        Event::Failed { document, reason } => of(None, document, "Failed", reason.clone()),
        Event::Recovered { document, seq, lost } => {
            of(None, document, "Recovered", format!("own ops up to seq {seq}, {} lost", lost.len()))
        }
        Event::Closed { link, document, code, reason, .. } => {
            of(Some(*link), document, "Closed", because(&code.to_string(), reason))
        }
    }
}
