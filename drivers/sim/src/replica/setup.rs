//! How a replica is set up in a world, as a value and as text.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use antiphon::op::DocumentId;
use antiphon::replica::{Admission, Authority, Config, Options, Salvage};
use antiphon::wire::{Access, Durability};

use crate::text::{self, bytes_text, duration_text, parse_bytes, parse_duration};

/// How a replica is set up. As text, it is words such as
/// `documents=notes,todo authority=upstream promise=fsync window=2kB`, each optional and in any order; what is not named
/// is as in [`Config::default`]. The text knows only some of what the configuration has.
///
/// | word | what it sets |
/// | --- | --- |
/// | `documents=` | what the app opens at each start, for reading and writing |
/// | `reads=` | what it opens for reading |
/// | `authority=`, `salvage=` | `us` or `upstream`, and `hand_over`, for all documents |
/// | `promise=`, `sync_every=` | the disk's promise (`memory`, `fsync`), and after how many writes it syncs |
/// | `peers=`, `admits=`, `answer_after=` | `ask` or `closed`: who may connect, what may be opened, how long the host thinks |
/// | `frame=`, `op=`, `window=`, `credit=` | the limits stated to peers |
/// | `tail=`, `read=` | cost of entries in memory, and of what is read at once |
/// | `idle=`, `write_deadline=`, `ack_delay=`, `ping_after=`, `silence=` | times |
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Setup {
    /// How the replica behaves.
    pub config: Config,
    /// What its app has open.
    pub documents: BTreeMap<DocumentId, Options>,
    /// How long the host thinks before it lets someone in, where it is asked.
    pub answer_after: Duration,
    /// After how many writes the disk syncs everything; 0: only when the replica ends in order.
    pub sync_every: u32,
}

impl Setup {
    /// What the disk promises, and the replica its peers.
    pub fn promise(&self) -> Durability {
        self.config.session.durability
    }
}

/// A number in a setup.
#[derive(Clone, Copy, PartialEq)]
enum Value {
    Time(Duration),
    Bytes(u64),
    Count(u64),
}

impl Value {
    fn text(self) -> String {
        match self {
            Self::Time(time) => duration_text(time),
            Self::Bytes(bytes) => bytes_text(bytes),
            Self::Count(count) => count.to_string(),
        }
    }

    /// Another value of the kind.
    fn parse(self, text: &str) -> Result<Self, &'static str> {
        match self {
            Self::Time(_) => parse_duration(text).map(Self::Time).ok_or(text::DURATION),
            Self::Bytes(_) => parse_bytes(text).map(Self::Bytes).ok_or(text::BYTES),
            Self::Count(_) => text.parse().map(Self::Count).map_err(|_| "a whole number"),
        }
    }
}

/// The name of a number, how it is read, and how it is set.
type Field = (&'static str, fn(&Setup) -> Value, fn(&mut Setup, Value));

macro_rules! field {
    ($name:literal, Time, $($place:ident).+) => {
        ($name, |setup| Value::Time(setup.$($place).+), |setup, value| {
            if let Value::Time(time) = value { setup.$($place).+ = time; }
        })
    };
    ($name:literal, $kind:ident, $number:ty, $($place:ident).+) => {
        ($name, |setup| Value::$kind(setup.$($place).+.into()), |setup, value| {
            if let Value::$kind(number) = value { setup.$($place).+ = <$number>::try_from(number).unwrap_or(<$number>::MAX); }
        })
    };
}

const FIELDS: [Field; 13] = [
    field!("sync_every", Count, u32, sync_every),
    field!("answer_after", Time, answer_after),
    field!("frame", Bytes, u32, config.session.limits.frame),
    field!("op", Bytes, u32, config.session.limits.op),
    field!("window", Bytes, u32, config.session.limits.window),
    field!("credit", Bytes, u32, config.session.limits.credit),
    field!("tail", Bytes, u64, config.tail_max),
    field!("read", Bytes, u64, config.read_max),
    field!("idle", Time, config.idle_max),
    field!("write_deadline", Time, config.write_deadline),
    field!("ack_delay", Time, config.session.ack_delay),
    field!("ping_after", Time, config.session.ping_after),
    field!("silence", Time, config.session.silence_max),
];

fn admission_text(name: &str, admission: Admission) -> Option<String> {
    match admission {
        Admission::Open => None,
        Admission::Ask => Some(format!("{name}=ask")),
        Admission::Closed => Some(format!("{name}=closed")),
    }
}

fn parse_admission(text: &str) -> Result<Admission, &'static str> {
    match text {
        "ask" => Ok(Admission::Ask),
        "closed" => Ok(Admission::Closed),
        _ => Err("ask or closed"),
    }
}

fn documents_text(name: &str, setup: &Setup, access: Access) -> Option<String> {
    let named = setup.documents.iter().filter(|(_, options)| options.access == access);
    let named: Vec<_> = named.map(|(document, _)| document.to_string()).collect();
    (!named.is_empty()).then(|| format!("{name}={}", named.join(",")))
}

fn parse_documents(text: &str) -> Result<Vec<DocumentId>, &'static str> {
    let named: Result<Vec<_>, _> = text.split(',').map(str::parse).collect();
    named.map_err(|_| "names of documents with commas between them")
}

impl fmt::Display for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let usual = Self::default();
        let options = self.documents.values().next().cloned().unwrap_or_default();
        let named = [
            documents_text("documents", self, Access::Write),
            documents_text("reads", self, Access::Read),
            match options.authority {
                Authority::Nobody => None,
                Authority::Us => Some("authority=us".to_owned()),
                Authority::Upstream => Some("authority=upstream".to_owned()),
            },
            (options.salvage == Salvage::HandOver).then(|| "salvage=hand_over".to_owned()),
            match self.promise() {
                Durability::Memory => Some("promise=memory".to_owned()),
                Durability::Commit => None,
                Durability::Fsync => Some("promise=fsync".to_owned()),
            },
            admission_text("peers", self.config.peers),
            admission_text("admits", self.config.documents),
        ];
        let numbers = FIELDS.iter().filter(|(_, get, _)| get(self) != get(&usual));
        let numbers = numbers.map(|(name, get, _)| format!("{name}={}", get(self).text()));
        f.write_str(&named.into_iter().flatten().chain(numbers).collect::<Vec<_>>().join(" "))
    }
}

impl FromStr for Setup {
    type Err = BadSetup;

    fn from_str(text: &str) -> Result<Self, BadSetup> {
        let (mut setup, mut all) = (Self::default(), Options::default());
        for word in text.split_whitespace() {
            let bad = |expected| BadSetup { word: word.to_owned(), expected };
            let (name, value) = word.split_once('=').ok_or_else(|| bad(NAMES))?;
            match name {
                "documents" | "reads" => {
                    let access = if name == "reads" { Access::Read } else { Access::Write };
                    let named = parse_documents(value).map_err(bad)?;
                    let opened = named.into_iter().map(|document| (document, Options { access, ..Options::default() }));
                    setup.documents.extend(opened);
                }
                "authority" => {
                    all.authority = match value {
                        "us" => Authority::Us,
                        "upstream" => Authority::Upstream,
                        _ => return Err(bad("us or upstream")),
                    }
                }
                "salvage" if value == "hand_over" => all.salvage = Salvage::HandOver,
                "salvage" => return Err(bad("hand_over")),
                "promise" => {
                    setup.config.session.durability = match value {
                        "memory" => Durability::Memory,
                        "fsync" => Durability::Fsync,
                        _ => return Err(bad("memory or fsync")),
                    }
                }
                "peers" => setup.config.peers = parse_admission(value).map_err(bad)?,
                "admits" => setup.config.documents = parse_admission(value).map_err(bad)?,
                _ => {
                    let field = FIELDS.iter().find(|(known, ..)| *known == name);
                    let (_, get, set) = field.ok_or_else(|| bad(NAMES))?;
                    let value = get(&setup).parse(value).map_err(bad)?;
                    set(&mut setup, value);
                }
            }
        }
        for options in setup.documents.values_mut() {
            *options = Options { access: options.access, ..all.clone() };
        }
        Ok(setup)
    }
}

/// Why a text is no [`Setup`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BadSetup {
    word: String,
    expected: &'static str,
}

impl fmt::Display for BadSetup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "wrong setup {:?}: expected {}", self.word, self.expected)
    }
}

impl Error for BadSetup {}

const NAMES: &str = "documents=, reads=, authority=, salvage=, promise=, sync_every=, peers=, admits=, answer_after=, \
                     frame=, op=, window=, credit=, tail=, read=, idle=, write_deadline=, ack_delay=, ping_after= or \
                     silence=";
