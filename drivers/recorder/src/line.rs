//! What is told of an event: a line, and how a frame becomes one.

use std::collections::BTreeMap;
use std::fmt;

use antiphon::codes::Code;
use antiphon::op::{DocumentId, Entry, ReplicaId};
use antiphon::replica::LinkId;
use antiphon_words::{EventWords, Family, Field, FrameWords, Named, Sign, frame_words, with_reason};
use bytes::Bytes;

/// Something that went into a machine or came out of it, in words.
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
    /// What frames of the kind are for, if it is one.
    pub family: Option<Family>,
    /// How it is marked in a picture, if it is worth a mark and no frame.
    pub sign: Option<Sign>,
    /// The rest: names, and what they stand for.
    pub fields: Vec<Field>,
}

impl Line {
    /// The fields as one text.
    pub fn text(&self) -> String {
        self.fields.iter().map(|(name, what)| format!("{name} {what}")).collect::<Vec<_>>().join(", ")
    }

    /// Something that is no frame.
    pub(crate) fn of(arrow: &'static str, kind: &'static str, sign: Option<Sign>) -> Self {
        Self { arrow, link: None, document: None, kind, family: None, sign, fields: Vec::new() }
    }

    pub(crate) fn on(self, link: &LinkId) -> Self {
        Self { link: Some(*link), ..self }
    }

    pub(crate) fn say(mut self, name: &'static str, what: impl ToString) -> Self {
        self.fields.push((name, what.to_string()));
        self
    }

    pub(crate) fn because(self, code: Code, reason: &str) -> Self {
        let line = self.say("code", code);
        Self { fields: with_reason(line.fields, reason.to_owned()), ..line }
    }

    pub(crate) fn whether_may_connect(self, replica: &ReplicaId, token: Option<&Bytes>) -> Self {
        let mut line = self.say("whether", format!("{replica} may connect"));
        line.fields.extend(token.map(|_| ("shows", String::from("a token"))));
        line
    }

    pub(crate) fn words(arrow: &'static str, words: EventWords) -> Self {
        let EventWords { kind, sign, link, document, fields } = words;
        Self { arrow, link, document, kind, family: None, sign: Some(sign), fields }
    }
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
        if self.fields.is_empty() { Ok(()) } else { write!(f, " {}", self.text()) }
    }
}

/// The documents that one end's numbers stand for.
pub(crate) type Numbers = BTreeMap<u32, DocumentId>;

/// A frame in words, with the names of documents as far as their numbers are known: those that an Open tells are learned.
pub(crate) fn frame_line(
    arrow: &'static str,
    frame: &Bytes,
    datagram: bool,
    own: &mut Numbers,
    peer: &mut Numbers,
) -> Line {
    let FrameWords { kind, family, document, number, mut fields } = frame_words(frame, datagram);
    let sent = arrow == "->";
    if let (Some(number), Some(Named::Document(document))) = (number, &document) {
        let numbered = if sent { &mut *own } else { &mut *peer };
        numbered.insert(number, document.clone());
    }
    let document = document.and_then(|document| {
        let (number, of_us) = match document {
            Named::Document(document) => return Some(document),
            Named::OfSender(number) => (number, sent),
            Named::OfReceiver(number) => (number, !sent),
        };
        let known = if of_us { own } else { peer }.get(&number).cloned();
        if known.is_none() {
            fields.insert(0, ("document", format!("number {number}")));
        }
        known
    });
    Line { arrow, link: None, document, kind, family: Some(family), sign: None, fields }
}

/// How many entries, and the bytes of their bodies.
pub(crate) fn entries_text(entries: &[Entry]) -> String {
    let bytes: usize = entries.iter().map(|entry| entry.op.body.wire_len()).sum();
    format!("{} entries, {bytes} bytes", entries.len())
}
