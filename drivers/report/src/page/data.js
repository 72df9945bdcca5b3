// ------------------------------------------------------------------------------------------------- the run

const run = JSON.parse(document.getElementById("data").textContent);
const NOTHING = -1;
const [ARRIVED, LOST, UNDERWAY] = [0, 1, 2];

// In the order of their numbers in the data: a name, a color of the style, what is told in the legend.
const FAMILIES = [
  ["ops", "--changes"], ["how far, how much more", "--flow"], ["documents", "--documents"],
  ["sessions", "--session"], ["the link itself", "--link"], ["unknown", "--unknown"],
];
const SIGNS = [
  ["start", "--good"], ["end", "--bad"], ["user", "--user"], ["told", "--told"], ["good", "--good"], ["trouble", "--trouble"],
  ["bad", "--bad"], ["disk", "--disk"], ["link", "--session"], ["clock", "--trouble"], ["timer", "--link"],
];
const SIGN_WORDS = {
  start: "a process starts", end: "a process ends", user: "the user does something", told: "the app is told something",
  good: "the app is told something good", trouble: "something unusual that is dealt with", bad: "something went wrong",
  disk: "a disk does other than asked", link: "a link comes, goes or is another", clock: "a clock is set", timer: "a timer is due",
};
const TROUBLES = [
  ["no process is there", "--shade-down"], ["the process does nothing", "--shade-paused"], ["the disk is not well", "--shade-disk"],
  ["frames are lost", "--shade-cut"], ["frames suffer other faults", "--shade-faults"],
  ["nothing is there", ""],
];
const [DOWN, PAUSED, DISK, CUT, FAULTS, ABSENT] = [0, 1, 2, 3, 4, 5];
// Spans that are shaded, and those that are troubles to go to.
const isShaded = span => span.trouble !== ABSENT;
const isTrouble = span => span.trouble !== ABSENT && span.trouble !== FAULTS;

function pairs(places) {
  const all = [];
  for (let at = 0; at + 1 < places.length; at += 2) all.push([run.strings[places[at]], run.strings[places[at + 1]]]);
  return all;
}

const frames = run.frames.map(([from, to, sent, kind, family, doc, fields, copies]) => ({
  type: "frame", from, to, at: sent, kind: run.strings[kind], family, doc, fields,
  copies: copies.map(([at, fate, late, damaged, why]) => ({ at, fate, late, damaged, why: why === NOTHING ? "" : run.strings[why] })),
}));
const marks = run.marks.map(([at, lane, sign, kind, doc, fields]) => ({
  type: "mark", at, lane, sign: SIGNS[sign][0], color: SIGNS[sign][1], kind: run.strings[kind], doc, fields,
}));
const spans = run.spans.map(([from, to, lane, other, trouble, kind, fields]) => ({
  type: "span", at: from, to: to === NOTHING ? run.end : to, open: to === NOTHING, lane, other, trouble, kind: run.strings[kind], fields,
}));

// What is shown: lanes, documents (and what is about none), kinds of messages and of marks, by what they are called.
const shown = {
  lanes: new Set(run.lanes.keys()),
  documents: new Set([NOTHING, ...run.documents.keys()]),
  messages: new Set(frames.map(frame => frame.kind)),
  marks: new Set(marks.filter(mark => mark.sign !== "timer").map(mark => mark.kind)),
};

function isShown(item) {
  if (item.type === "frame") {
    return shown.lanes.has(item.from) && shown.lanes.has(item.to) && shown.documents.has(item.doc) && shown.messages.has(item.kind);
  }
  if (item.type === "mark") return shown.lanes.has(item.lane) && shown.documents.has(item.doc) && shown.marks.has(item.kind);
  return shown.lanes.has(item.lane) && (item.other === NOTHING || shown.lanes.has(item.other));
}

// A time in microseconds, as a person reads it. All digits are shown where they count.
function clock(micros, digits = 6) {
  const whole = Math.floor(micros / 1e6);
  const rest = String(micros % 1e6).padStart(6, "0").slice(0, digits);
  const [days, hours, minutes, seconds] = [Math.floor(whole / 86400), Math.floor(whole / 3600) % 24, Math.floor(whole / 60) % 60, whole % 60];
  const two = number => String(number).padStart(2, "0");
  const tail = digits > 0 ? "." + rest : "";
  if (whole < 60) return `${seconds}${tail} s`;
  if (whole < 3600) return `${minutes}:${two(seconds)}${tail}`;
  return `${days > 0 ? days + "d " : ""}${hours}:${two(minutes)}:${two(seconds)}${tail}`;
}

function duration(micros) {
  if (micros < 1000) return `${micros} µs`;
  if (micros < 1e6) return `${+(micros / 1e3).toFixed(3)} ms`;
  if (micros < 6e7) return `${+(micros / 1e6).toFixed(3)} s`;
  return clock(micros, 0);
}

function element(name, content, styles) {
  const made = document.createElement(name);
  if (content !== undefined) made.textContent = content;
  if (styles) made.className = styles;
  return made;
}
