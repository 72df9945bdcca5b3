//! A run as a value: what a space-time diagram shows.

use antiphon::Instant;

use antiphon_words::{Field, FrameWords, Sign};

/// A space-time diagram. Lanes, documents and times are named by their places in it; the page leaves out what has no
/// place there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Picture {
    /// What it is of, in a few words.
    pub title: String,
    /// What is told at its head: names, and what they stand for.
    pub facts: Vec<(String, String)>,
    /// The command that makes the run again.
    pub command: Option<String>,
    /// Longer texts, a plan say, with their titles.
    pub texts: Vec<(String, String)>,
    /// How it went, if no law broke.
    pub verdict: String,
    /// The law that broke, if one did.
    pub broken: Option<Broken>,
    /// Who was there.
    pub lanes: Vec<Lane>,
    /// The documents by name.
    pub documents: Vec<String>,
    /// What was sent.
    pub frames: Vec<Frame>,
    /// What happened at one moment.
    pub marks: Vec<Mark>,
    /// What was so for some time.
    pub spans: Vec<Span>,
    /// Moments that count for all lanes, and what they are.
    pub moments: Vec<(Instant, String)>,
    /// When it ends.
    pub end: Instant,
}

impl Picture {
    /// A picture of nothing yet.
    pub fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), ..Self::default() }
    }

    /// The place of a document among the documents: a new one if it has none.
    pub fn document(&mut self, name: &str) -> usize {
        let place = self.documents.iter().position(|known| known == name);
        place.unwrap_or_else(|| {
            self.documents.push(name.to_owned());
            self.documents.len() - 1
        })
    }
}

/// A law that is broken.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Broken {
    /// Which.
    pub law: String,
    /// How.
    pub what: String,
    /// When that was found.
    pub at: Instant,
}

/// A line that goes on as time does: a machine, or a link of one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Lane {
    /// What it is called; short, for it stands above the line.
    pub name: String,
    /// What else is to be known of it.
    pub note: String,
}

/// A frame from one lane to another.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Frame {
    /// The lane that sent it.
    pub from: usize,
    /// The lane that it was sent to.
    pub to: usize,
    /// When it was sent; where only its arrival is known, when that was.
    pub sent: Instant,
    /// What it says.
    pub words: FrameWords,
    /// The place of its document, if that is known.
    pub document: Option<usize>,
    /// What became of it, and of its copy if it was doubled on the way; nothing if that is not known.
    pub copies: Vec<Copy>,
}

/// What became of one copy of a frame.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Copy {
    /// When it arrived, or would have.
    pub at: Instant,
    /// What became of it.
    pub fate: Fate,
    /// It was held back on the way, so that others could overtake it.
    pub held_back: bool,
    /// A bit of it was turned on the way.
    pub damaged: bool,
}

/// What became of one copy of a frame, in short.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Fate {
    /// It arrived.
    Arrived,
    /// It did not, for this reason.
    Lost(String),
    /// When the run ended it was on its way.
    Underway,
}

/// Something that happened on a lane at one moment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mark {
    /// When.
    pub at: Instant,
    /// On which lane.
    pub lane: usize,
    /// How it is marked.
    pub sign: Sign,
    /// What it is, in a word or two: those of the same kind are shown and hidden together.
    pub kind: String,
    /// The place of its document, if it is about one.
    pub document: Option<usize>,
    /// What else is to be known of it.
    pub fields: Vec<Field>,
}

/// Something that was so for some time.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Span {
    /// Since when.
    pub from: Instant,
    /// Until when; to the end of the picture if that is not known.
    pub to: Option<Instant>,
    /// Where.
    pub place: Place,
    /// How it is shaded.
    pub trouble: Trouble,
    /// What it is, in a word or two.
    pub kind: String,
    /// What else is to be known of it.
    pub fields: Vec<Field>,
}

/// Where a span is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Place {
    /// On a lane.
    Lane(usize),
    /// Between two lanes.
    Between(usize, usize),
}

/// What is not as it should be.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Trouble {
    /// No process is there.
    Down,
    /// A process does nothing.
    Paused,
    /// A disk is not as it should be.
    Disk,
    /// What is sent does not arrive.
    Cut,
    /// A path suffers other faults than usual.
    Faults,
    /// Nothing is there yet, or nothing any longer, and that is as it should be: the line is not drawn.
    Absent,
}
