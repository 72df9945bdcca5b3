//! A replica's inputs and outputs as text, with the names that numbers and tickets stand for.

use std::collections::BTreeMap;

use antiphon::op::DocumentId;
use antiphon::replica::{Input, LinkId, Output, Question, Ticket};
use antiphon::session::Transport;
use antiphon::storage::{Reply, Request, Transaction};
use antiphon_words::{Sign, event_words, input_words};
use bytes::Bytes;

use crate::line::{Line, Numbers, entries_text, frame_line};

/// Puts a replica's inputs and outputs into words, and remembers what numbers and tickets stand for. It must be shown all
/// of them, in order; where outputs are missing, as in a trace that can't be replayed, some names stay numbers.
#[derive(Clone, Debug, Default)]
pub struct Transcript {
    links: BTreeMap<LinkId, Names>,
    own: Numbers,
    asked: BTreeMap<Ticket, Asked>,
}

/// What is known of a link.
#[derive(Clone, Debug, Default)]
struct Names {
    datagram: bool,
    peer: Numbers,
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
        let of = |kind, sign| Line::of("", kind, sign);
        match input {
            Input::Connected { link, transport, token, upstream } => {
                let datagram = matches!(transport, Transport::Datagram { .. });
                self.links.insert(*link, Names { datagram, peer: BTreeMap::new() });
                let line = of("Connected", Some(Sign::Link)).on(link);
                let mut line = line.say("over", if datagram { "datagrams" } else { "a reliable transport" });
                line.fields.extend(upstream.then(|| ("to", String::from("upstream"))));
                line.fields.extend(token.as_ref().map(|_| ("with", String::from("a token"))));
                line
            }
            Input::Disconnected { link } => {
                self.links.remove(link);
                of("Disconnected", Some(Sign::Link)).on(link)
            }
            Input::Received { link, frame } => self.frame("<-", *link, frame),
            Input::Writable { link, bytes } => of("Writable", None).on(link).say("bytes", bytes),
            Input::Timer => of("Timer", Some(Sign::Timer)),
            Input::Storage { ticket, reply } => {
                let asked = self.asked.remove(ticket);
                let what = asked.as_ref().map_or("answer", |asked| asked.what);
                let line = match reply {
                    Ok(reply) => of("Storage", None).say(what, reply_text(reply)),
                    Err(error) => of("Storage", Some(Sign::Disk)).say(what, format!("failed: {error}")),
                };
                Line { document: asked.and_then(|asked| asked.document), ..line }
            }
            Input::Answer { ticket, answer } => {
                let (link, document) =
                    self.asked.remove(ticket).map_or((None, None), |asked| (asked.link, asked.document));
                let line = match answer {
                    Ok(granted) => of("Answer", None).say("granted", format!("{granted:?}").to_lowercase()),
                    Err((code, reason)) => of("Answer", Some(Sign::Trouble)).because(*code, reason),
                };
                Line { link, document, ..line }
            }
            Input::Open { .. }
            | Input::Close { .. }
            | Input::Append { .. }
            | Input::ImmediateAck { .. }
            | Input::Reset { .. }
            | Input::Compact { .. }
            | Input::Disconnect { .. } => {
                input_words(input).map_or_else(|| of("Input", None), |words| Line::words("", words))
            }
        }
    }

    /// Something that the replica wants done.
    pub fn output(&mut self, output: &Output) -> Line {
        let of = |kind, sign| Line::of("=>", kind, sign);
        match output {
            Output::Transmit { link, frame } => self.frame("->", *link, frame),
            Output::Disconnect { link, ending } => {
                of("Disconnect", Some(Sign::Link)).on(link).because(ending.code, &ending.reason)
            }
            Output::Storage { ticket, request } => {
                let (document, what, text) = request_text(request);
                self.asked.insert(*ticket, Asked { link: None, document: document.clone(), what });
                Line { document, ..of("Storage", None).say(what, text) }
            }
            Output::Ask { ticket, question } => {
                let line = of("Ask", None);
                let (link, document, line) = match question {
                    Question::Peer { link, replica, token } => {
                        (*link, None, line.whether_may_connect(replica, token.as_ref()))
                    }
                    Question::Document { link, replica, document, access, .. } => {
                        let wanted = format!("{access:?}").to_lowercase();
                        (*link, Some(document.clone()), line.say("whether", format!("{replica} may {wanted} it")))
                    }
                };
                self.asked.insert(*ticket, Asked { link: Some(link), document: document.clone(), what: "answer" });
                Line { document, ..line.on(&link) }
            }
            Output::Event(event) => Line::words("=>", event_words(event)),
        }
    }

    fn frame(&mut self, arrow: &'static str, link: LinkId, frame: &Bytes) -> Line {
        let Names { datagram, peer } = self.links.entry(link).or_default();
        frame_line(arrow, frame, *datagram, &mut self.own, peer).on(&link)
    }
}

fn reply_text(reply: &Reply) -> String {
    match reply {
        Reply::Document(stored) => format!("tail {}, {} authors", stored.tail, stored.heads.len()),
        Reply::Cursor(None) => String::from("none"),
        Reply::Cursor(Some(cursor)) => format!("{} of {:?}", cursor.position, cursor.timeline),
        Reply::Entries(entries) => entries_text(entries),
        Reply::Compared(comparison) => format!("from {}, {} forks", comparison.from, comparison.forks.len()),
        Reply::Chains(chains) => format!("{} chains", chains.len()),
        Reply::Snapshot(bytes) => format!("{} bytes", bytes.len()),
        Reply::Written => String::from("done"),
    }
}

fn request_text(request: &Request) -> (Option<DocumentId>, &'static str, String) {
    let (document, what, text) = match request {
        Request::Open(document) => (document, "open", String::from("it")),
        Request::Cursor { document, peer } => (document, "cursor", format!("on {peer}")),
        Request::Read { document, from, max_cost } => (document, "read", format!("from {from}, cost {max_cost}")),
        Request::ReadAside { document, from, .. } => (document, "read aside", format!("from {from}")),
        Request::Compare { document, heads } => (document, "compare", format!("with {} heads", heads.len())),
        Request::Chains { document, ids } => (document, "chains", format!("at {} ops", ids.len())),
        Request::Snapshot { document, offset, .. } => (document, "read snapshot", format!("from byte {offset}")),
        Request::Write(Transaction::Identity(identity)) => {
            return (None, "write", format!("identity {}", identity.replica));
        }
        Request::Write(Transaction::Append(batch)) => {
            let text =
                format!("{} entries at {}, {} cursors", batch.entries.len(), batch.position, batch.cursors.len());
            (&batch.document, "write", text)
        }
        Request::Write(Transaction::Reset { document, .. }) => (document, "write", String::from("a new beginning")),
        Request::Write(Transaction::Compact { document, horizon, body }) => {
            (document, "write", format!("a snapshot of {} bytes for what is below {horizon}", body.len()))
        }
        Request::Write(Transaction::Stage { document, offset, bytes, .. }) => {
            (document, "write", format!("{} bytes of a snapshot at {offset}", bytes.len()))
        }
        Request::Write(Transaction::Install { document, .. }) => {
            (document, "write", String::from("a new beginning, from a snapshot"))
        }
    };
    (Some(document.clone()), what, text)
}
