
// ------------------------------------------------------------------------------------------------- where things are

const AXIS = 92;           // pixels for the times at the left
const HEAD = 40;           // and for the names above
const LANE_MIN = 120, LANE_MAX = 380;
const WIDTH_MAX = 14000;   // what browsers draw
const FLIGHT = 34;         // pixels that a usual flight goes down
const THICK = 7;           // between frames that an end sends or receives at the same moment
const IDLE = 70;           // more pixels than this in which nothing happens are shortened
const LENGTH_MAX = 12e6;   // what browsers scroll

let zoom = 1;
let shortens = true;
let layout;

// Pixels for a millisecond, before zooming: so that usual flights are seen as such.
const pixels = (() => {
  const flights = frames.flatMap(frame => frame.copies.filter(copy => copy.fate === ARRIVED && copy.at > frame.at).map(copy => copy.at - frame.at));
  const middle = list => list.sort((one, other) => one - other)[list.length >> 1];
  if (flights.length) return FLIGHT / (middle(flights) / 1000);
  // Where none is known: what usually lies between two frames.
  const times = [...new Set(frames.map(frame => frame.at))].sort((one, other) => one - other);
  const steps = times.slice(1).map((at, place) => at - times[place]);
  return FLIGHT / ((steps.length ? middle(steps) : 1000) / 1000);
})();

function gap(micros) {
  const stretched = micros / 1000 * pixels * Math.max(zoom, 1);
  const short = shortens && stretched > IDLE ? IDLE + 14 * Math.log2(stretched / IDLE) : stretched;
  return short * Math.min(zoom, 1);
}

// Lanes side by side, time downward. A moment at which an end sends or receives several frames is as thick as needed to
// tell them apart; between moments time is to scale, but for what is shortened.
function lay(width) {
  const lanes = [...shown.lanes].sort((one, other) => one - other);
  const wide = Math.max(Math.min(LANE_MIN, WIDTH_MAX / Math.max(lanes.length, 1)), Math.min(LANE_MAX, (width - AXIS - 20) / Math.max(lanes.length, 1)));
  const x = new Map(lanes.map((lane, place) => [lane, AXIS + wide * (place + 0.5)]));
  const seen = { frames: frames.filter(isShown), marks: marks.filter(isShown), spans: spans.filter(isShown) };
  const moments = new Map([[0, 0], [run.end, 0]]);
  const ends = new Map();
  const end = (lane, at) => {
    const name = lane + ":" + at;
    const before = ends.get(name) || 0;
    ends.set(name, before + 1);
    moments.set(at, Math.max(moments.get(at) || 0, before));
    return before;
  };
  for (const mark of seen.marks) if (!moments.has(mark.at)) moments.set(mark.at, 0);
  for (const frame of seen.frames) {
    frame.place = end(frame.from, frame.at);
    for (const copy of frame.copies) copy.place = copy.fate === ARRIVED ? end(frame.to, copy.at) : 0;
  }
  for (const span of seen.spans) for (const at of [span.at, span.to]) if (!moments.has(at)) moments.set(at, 0);
  for (const at of [...run.moments.map(([at]) => at), ...(run.broken ? [run.broken[2]] : [])]) if (!moments.has(at)) moments.set(at, 0);
  const times = [...moments.keys()].sort((one, other) => one - other);
  const thick = THICK * Math.min(zoom, 2.4);
  const tops = [], bottoms = [], breaks = [];
  let y = HEAD + 14;
  times.forEach((at, place) => {
    if (place > 0) {
      const micros = at - times[place - 1];
      const high = gap(micros);
      if (shortens && micros / 1000 * pixels * zoom > high * 2.5 && high > 24) breaks.push({ y: y + high / 2, micros });
      y += high;
    }
    tops.push(y);
    y += moments.get(at) * thick;
    bottoms.push(y);
  });
  layout = { lanes, x, wide, seen, times, tops, bottoms, breaks, thick, width: AXIS + wide * lanes.length + 20, length: y + 60 };
  for (const frame of seen.frames) frame.lines = linesOf(frame);
  stackMarks();
  if (layout.length > LENGTH_MAX && zoom > 1e-9) {
    zoom *= LENGTH_MAX / layout.length / 1.05;
    lay(width);
  }
}

// The place of the last moment that is not after this one.
function momentAt(list, value) {
  let low = 0, high = list.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (list[middle] <= value) low = middle; else high = middle - 1;
  }
  return low;
}

function yOf(at, place = 0) {
  const { times, tops, bottoms, thick } = layout;
  const moment = momentAt(times, at);
  if (times[moment] === at) return tops[moment] + place * thick;
  if (moment + 1 >= times.length || at < times[0]) return bottoms[moment];
  const part = (at - times[moment]) / (times[moment + 1] - times[moment]);
  return bottoms[moment] + part * (tops[moment + 1] - bottoms[moment]);
}

function timeAt(y) {
  const { times, tops, bottoms } = layout;
  const moment = momentAt(tops, y);
  if (y <= bottoms[moment] || moment + 1 >= times.length) return times[moment];
  const part = (y - bottoms[moment]) / Math.max(tops[moment + 1] - bottoms[moment], 1e-9);
  return times[moment] + part * (times[moment + 1] - times[moment]);
}

// The line of a copy of a frame: of one that is lost, the part of the way that is drawn.
function lineOf(frame, copy) {
  const [fromX, toX] = [layout.x.get(frame.from), layout.x.get(frame.to)];
  const fromY = yOf(frame.at, frame.place);
  if (!copy) return { fromX, fromY, toX: fromX + (toX - fromX) * 0.45, toY: fromY, whole: false };
  const toY = copy.at >= frame.at ? Math.max(yOf(copy.at, copy.place), fromY) : fromY;
  const part = copy.fate === ARRIVED ? 1 : copy.fate === LOST ? 0.55 : 0.8;
  return { fromX, fromY, toX: fromX + (toX - fromX) * part, toY: fromY + (toY - fromY) * part, whole: copy.fate === ARRIVED };
}

function linesOf(frame) {
  return frame.copies.length ? frame.copies.map(copy => lineOf(frame, copy)) : [lineOf(frame, null)];
}

// Marks that would cover each other stand side by side, right of their lane; those beyond the last column are not drawn
// until there is room.
const MARK = 13, COLUMNS = 7;
const ON_LANE = new Set(["start", "end"]), MINOR = new Set(["timer", "told"]);

function stackMarks() {
  const last = new Map(layout.lanes.map(lane => [lane, new Array(COLUMNS).fill(-Infinity)]));
  for (const mark of layout.seen.marks) {
    mark.y = yOf(mark.at);
    if (ON_LANE.has(mark.sign)) continue;
    const columns = last.get(mark.lane);
    mark.column = columns.findIndex(below => below + MARK * 0.8 <= mark.y);
    if (mark.column < 0 && !MINOR.has(mark.sign)) mark.column = COLUMNS - 1;
    if (mark.column >= 0) columns[mark.column] = mark.y;
  }
}

function xOfMark(mark) {
  return layout.x.get(mark.lane) + (ON_LANE.has(mark.sign) ? 0 : 12 + mark.column * MARK);
}
