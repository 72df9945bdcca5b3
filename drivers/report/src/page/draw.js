
// ------------------------------------------------------------------------------------------------- drawing

const scroller = document.getElementById("scroller");
const canvas = document.getElementById("picture");
const overview = document.getElementById("overview");
const FONT = "11px system-ui, sans-serif";
let colors;

function readColors() {
  const style = getComputedStyle(document.documentElement);
  colors = name => style.getPropertyValue(name).trim();
}

function fit(target, width, height) {
  const ratio = window.devicePixelRatio || 1;
  [target.width, target.height] = [Math.round(width * ratio), Math.round(height * ratio)];
  [target.style.width, target.style.height] = [width + "px", height + "px"];
  const pen = target.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  return pen;
}

// Texts that would cover each other are left out; those that are put first count.
class Labels {
  constructor(pen) { [this.pen, this.boxes] = [pen, []]; }

  put(words, x, y, { color = "--ink", align = "left", turn = 0, must = false, weight = "" } = {}) {
    const pen = this.pen;
    pen.font = weight + FONT;
    const width = pen.measureText(words).width;
    const left = align === "left" ? x : align === "right" ? x - width : x - width / 2;
    const bent = Math.abs(Math.sin(turn)) * width / 2;
    const box = [left - 2, y - 7 - bent, left + width + 2, y + 7 + bent];
    const covers = this.boxes.some(other => box[0] < other[2] && other[0] < box[2] && box[1] < other[3] && other[1] < box[3]);
    if (covers && !must) return false;
    this.boxes.push(box);
    pen.save();
    pen.translate(left + width / 2, y);
    pen.rotate(turn);
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    pen.lineWidth = 3.5;
    pen.lineJoin = "round";
    pen.strokeStyle = colors("--ground");
    pen.strokeText(words, 0, 0);
    pen.fillStyle = colors(color);
    pen.fillText(words, 0, 0);
    pen.restore();
    return true;
  }

  block(x, y, half) { this.boxes.push([x - half, y - half, x + half, y + half]); }
}

function arrowHead(pen, { fromX, fromY, toX, toY }, size) {
  const angle = Math.atan2(toY - fromY, toX - fromX);
  pen.beginPath();
  pen.moveTo(toX, toY);
  pen.lineTo(toX - size * Math.cos(angle - 0.4), toY - size * Math.sin(angle - 0.4));
  pen.lineTo(toX - size * Math.cos(angle + 0.4), toY - size * Math.sin(angle + 0.4));
  pen.fill();
}

function cross(pen, x, y, half, width = 2) {
  pen.lineWidth = width;
  pen.beginPath();
  pen.moveTo(x - half, y - half); pen.lineTo(x + half, y + half);
  pen.moveTo(x + half, y - half); pen.lineTo(x - half, y + half);
  pen.stroke();
}

function zigzag(pen, x, y) {
  pen.lineWidth = 2;
  pen.beginPath();
  pen.moveTo(x + 3, y - 7); pen.lineTo(x - 3, y + 0.5); pen.lineTo(x + 3, y - 0.5); pen.lineTo(x - 3, y + 7);
  pen.stroke();
}

function drawCopy(pen, frame, copy, line, strong) {
  const bad = colors("--bad");
  pen.strokeStyle = pen.fillStyle = colors(FAMILIES[frame.family][1]);
  pen.lineWidth = (frame.family === 0 ? 1.7 : 1.1) + (strong ? 1.4 : 0);
  pen.setLineDash(copy && copy.fate === LOST ? [5, 4] : copy && copy === frame.copies[1] ? [1.5, 3] : []);
  pen.beginPath();
  pen.moveTo(line.fromX, line.fromY);
  pen.lineTo(line.toX, line.toY);
  pen.stroke();
  pen.setLineDash([]);
  if (line.whole || !copy || copy.fate === UNDERWAY) arrowHead(pen, line, frame.family === 0 ? 9 : 7);
  pen.strokeStyle = bad;
  if (copy && copy.fate === LOST) cross(pen, line.toX, line.toY, 4.5);
  const along = part => [line.fromX + (line.toX - line.fromX) * part, line.fromY + (line.toY - line.fromY) * part];
  if (copy && copy.damaged) zigzag(pen, ...along(0.72));
  if (copy && copy.late) {
    const [x, y] = along(0.6);
    pen.strokeStyle = colors("--trouble");
    pen.fillStyle = colors("--ground");
    pen.lineWidth = 1.7;
    pen.beginPath(); pen.arc(x, y, 4, 0, 7); pen.fill(); pen.stroke();
  }
}

// A mark of 10 pixels around a place.
function drawMark(pen, sign, color, x, y, strong) {
  pen.strokeStyle = pen.fillStyle = colors(color);
  pen.lineWidth = strong ? 2.6 : 1.6;
  const shape = (...places) => {
    pen.beginPath();
    places.forEach(([dx, dy], place) => (place ? pen.lineTo(x + dx, y + dy) : pen.moveTo(x + dx, y + dy)));
    pen.closePath();
  };
  const disc = radius => { pen.beginPath(); pen.arc(x, y, radius, 0, 7); };
  switch (sign) {
    case "start": disc(5); pen.fill(); break;
    case "end": pen.fillStyle = colors("--ground"); disc(7); pen.fill(); cross(pen, x, y, 5.5, strong ? 4 : 3); break;
    case "user": shape([-4, -5], [5, 0], [-4, 5]); pen.fill(); break;
    case "told": pen.fillStyle = colors("--ground"); disc(3.6); pen.fill(); pen.stroke(); break;
    case "good": disc(4.4); pen.fill(); break;
    case "trouble": shape([0, -5.5], [5.5, 4.5], [-5.5, 4.5]); pen.fillStyle = colors("--ground"); pen.fill(); pen.stroke(); break;
    case "bad": shape([0, -6], [6, 5], [-6, 5]); pen.fill(); break;
    case "disk": pen.fillRect(x - 4.5, y - 4.5, 9, 9); break;
    case "link": shape([0, -5], [5, 0], [0, 5], [-5, 0]); pen.fillStyle = colors("--ground"); pen.fill(); pen.stroke(); break;
    case "clock": disc(5); pen.fillStyle = colors("--ground"); pen.fill(); pen.stroke();
      pen.beginPath(); pen.moveTo(x, y - 3.5); pen.lineTo(x, y); pen.lineTo(x + 3, y); pen.stroke(); break;
    default: pen.beginPath(); pen.moveTo(x - 4, y); pen.lineTo(x + 4, y); pen.stroke();
  }
  if (strong) { pen.lineWidth = 1.5; disc(9); pen.stroke(); }
}

// ------------------------------------------------------------------------------------------------- spans

// The rectangles that a span covers: the lane itself, or what lies between two lanes; beside each of them only, where
// others stand between them.
function placesOf(span) {
  const [top, bottom] = [yOf(span.at), Math.max(yOf(span.to), yOf(span.at) + 3)];
  const x = layout.x.get(span.lane);
  if (span.other === NOTHING) {
    const [left, width] = { [DOWN]: [x - 9, 18], [PAUSED]: [x - 7, 14], [DISK]: [x - 16, 7] }[span.trouble] || [x - 9, 18];
    return [{ left, width, top, bottom }];
  }
  const other = layout.x.get(span.other);
  const [left, right] = [Math.min(x, other), Math.max(x, other)];
  const inset = span.trouble === FAULTS ? 26 : 12;
  if (right - left < layout.wide * 1.5) return [{ left: left + inset, width: right - left - 2 * inset, top, bottom }];
  const reach = layout.wide * 0.42;
  return [
    { left: left + inset, width: reach, top, bottom, fades: 1 },
    { left: right - inset - reach, width: reach, top, bottom, fades: -1 },
  ];
}

function drawSpan(pen, span, view) {
  const [, color] = TROUBLES[span.trouble];
  const strong = span === hovered || span === pinned;
  for (const { left, width, top, bottom, fades } of placesOf(span)) {
    if (bottom < view.top || top > view.bottom) continue;
    const [from, to] = [Math.max(top, view.top - 20) - view.top, Math.min(bottom, view.bottom + 20) - view.top];
    pen.globalAlpha = (span.trouble === FAULTS ? 0.07 : span.trouble === CUT ? 0.15 : 0.3) * (strong ? 1.8 : 1);
    if (fades) {
      const shade = pen.createLinearGradient(left, 0, left + width, 0);
      shade.addColorStop(fades > 0 ? 0 : 1, colors(color));
      shade.addColorStop(fades > 0 ? 1 : 0, "transparent");
      pen.fillStyle = shade;
    } else {
      pen.fillStyle = colors(color);
    }
    pen.fillRect(left, from, width, to - from);
    pen.globalAlpha = 1;
    if (span.trouble === FAULTS || fades) continue;
    pen.strokeStyle = colors(color);
    pen.lineWidth = 1;
    pen.globalAlpha = 0.5;
    pen.strokeRect(left + 0.5, from, width - 1, to - from);
    pen.globalAlpha = 1;
  }
}

// What a span is stands at its beginning, or where it comes into view.
function labelSpan(labels, span, view) {
  for (const { left, width, top, bottom } of placesOf(span)) {
    const y = Math.max(top + 9, view.top + HEAD + 9);
    if (y > bottom + 4 || y > view.bottom) continue;
    const [, color] = TROUBLES[span.trouble];
    if (span.other === NOTHING) labels.put(span.kind, left - 5, y - view.top, { color, align: "right" });
    else labels.put(span.kind, left + width / 2, y - view.top, { color, align: "center" });
  }
}

// ------------------------------------------------------------------------------------------------- the picture

let hovered = null, pinned = null;
let asked = false;

function draw() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => { asked = false; drawNow(); });
}

function drawNow() {
  const [width, height] = [Math.max(scroller.clientWidth, layout.width), scroller.clientHeight];
  const pen = fit(canvas, width, height);
  const view = { top: scroller.scrollTop, bottom: scroller.scrollTop + height };
  const near = y => y > view.top - 40 && y < view.bottom + 40;
  pen.fillStyle = colors("--ground");
  pen.fillRect(0, 0, width, height);
  const labels = new Labels(pen);
  drawTimes(pen, labels, view, width);
  const shaded = layout.seen.spans.filter(isShaded);
  for (const span of shaded) drawSpan(pen, span, view);
  drawLanes(pen, view);
  // What is looked at is drawn last, over the rest.
  const looked = new Set([hovered, pinned]);
  const visible = [];
  for (const frame of layout.seen.frames) {
    if (frame.lines[0].fromY > view.bottom || frame.lines.every(line => line.toY < view.top)) continue;
    const lines = frame.lines.map(line => ({ ...line, fromY: line.fromY - view.top, toY: line.toY - view.top }));
    visible.push([frame, lines]);
  }
  const copies = ([frame, lines]) => lines.forEach((line, place) => drawCopy(pen, frame, frame.copies[place], line, looked.has(frame)));
  visible.filter(([frame]) => !looked.has(frame)).forEach(copies);
  visible.filter(([frame]) => looked.has(frame)).forEach(copies);
  const near_marks = layout.seen.marks.filter(mark => near(mark.y) && mark.column !== -1);
  for (const mark of near_marks) {
    const [x, y] = [xOfMark(mark), mark.y - view.top];
    drawMark(pen, mark.sign, mark.color, x, y, looked.has(mark));
    labels.block(x, y, 6);
  }
  drawMoments(pen, labels, view, width);
  for (const span of shaded) labelSpan(labels, span, view);
  labelMarks(labels, near_marks, view);
  for (const [frame, lines] of visible) labelFrame(labels, frame, lines[0]);
  drawNames(pen, width);
  drawOverview(view);
}

function drawTimes(pen, labels, view, width) {
  pen.lineWidth = 1;
  let last = -Infinity;
  const { times, tops, breaks } = layout;
  for (let moment = momentAt(tops, view.top - 60); moment < times.length && tops[moment] < view.bottom; moment++) {
    if (tops[moment] < last + 46) continue;
    last = tops[moment];
    pen.strokeStyle = colors("--edge");
    pen.beginPath();
    pen.moveTo(AXIS - 8, last - view.top); pen.lineTo(width, last - view.top);
    pen.globalAlpha = 0.6;
    pen.stroke();
    pen.globalAlpha = 1;
    labels.put(clock(times[moment], 4), AXIS - 12, last - view.top, { color: "--faint", align: "right" });
  }
  for (const { y, micros } of breaks) {
    if (y < view.top || y > view.bottom) continue;
    labels.put(`⋮ ${duration(micros)}`, AXIS - 12, y - view.top, { color: "--faint", align: "right" });
  }
}

function drawLanes(pen, view) {
  const down = layout.seen.spans.filter(span => (span.trouble === DOWN || span.trouble === ABSENT) && span.other === NOTHING);
  for (const lane of layout.lanes) {
    const x = layout.x.get(lane);
    pen.strokeStyle = colors("--lane");
    pen.lineWidth = 2;
    let from = Math.max(HEAD, HEAD + 14 - view.top);
    for (const span of down.filter(span => span.lane === lane)) {
      const [top, bottom] = [yOf(span.at) - view.top, (span.open ? layout.length : yOf(span.to)) - view.top];
      if (top > from) { pen.beginPath(); pen.moveTo(x, from); pen.lineTo(x, top); pen.stroke(); }
      from = Math.max(from, bottom);
    }
    const to = Math.min(view.bottom, layout.length - 30) - view.top;
    if (to > from) { pen.beginPath(); pen.moveTo(x, from); pen.lineTo(x, to); pen.stroke(); }
  }
}

// Lines across all lanes, with their words.
function drawMoments(pen, labels, view, width) {
  const across = (at, words, color) => {
    const y = yOf(at) - view.top;
    if (y < -20 || y > view.bottom - view.top + 20) return;
    pen.strokeStyle = colors(color);
    pen.lineWidth = 2;
    pen.setLineDash([9, 4]);
    pen.beginPath();
    pen.moveTo(AXIS - 8, y); pen.lineTo(width, y);
    pen.stroke();
    pen.setLineDash([]);
    const put = (x, must) => labels.put(words, x, y - 9, { color, must, weight: "bold " });
    if (!put(AXIS - 4, false) && !put(AXIS + 240, false)) put(AXIS + 480, true);
  };
  if (run.broken) across(run.broken[2], `the law “${run.broken[0]}” is broken`, "--bad");
  for (const [at, words] of run.moments) across(at, words, "--good");
}

function labelMarks(labels, near, view) {
  const said = sign => !["timer", "told", "user", "good", "link"].includes(sign);
  for (const mark of near) {
    const important = said(mark.sign);
    if (!important && zoom < 1.6) continue;
    const words = mark.kind.toLowerCase();
    labels.put(words, xOfMark(mark) + 9, mark.y - view.top, { color: mark.color });
  }
}

function labelFrame(labels, frame, line) {
  const [wide, high] = [line.toX - line.fromX, line.toY - line.fromY];
  if (Math.abs(wide) < 60) return;
  const turn = Math.atan(high / wide);
  const part = Math.abs(turn) > 1 ? 0.3 : 0.33;
  labels.put(frame.kind, line.fromX + wide * part, line.fromY + high * part - 1, { color: FAMILIES[frame.family][1], align: "center", turn });
}

function drawNames(pen, width) {
  pen.fillStyle = colors("--panel");
  pen.fillRect(0, 0, width, HEAD);
  pen.strokeStyle = colors("--edge");
  pen.lineWidth = 1;
  pen.beginPath(); pen.moveTo(0, HEAD + 0.5); pen.lineTo(width, HEAD + 0.5); pen.stroke();
  pen.textBaseline = "middle";
  pen.textAlign = "center";
  const clip = (words, font) => {
    pen.font = font;
    let short = words;
    while (short.length > 1 && pen.measureText(short).width > layout.wide - 12) short = short.slice(0, -2);
    return short === words ? words : short + "…";
  };
  for (const lane of layout.lanes) {
    const [name, note] = run.lanes[lane];
    pen.fillStyle = colors("--ink");
    pen.fillText(clip(name, "bold 13px system-ui, sans-serif"), layout.x.get(lane), note ? 13 : 20);
    pen.fillStyle = colors("--faint");
    pen.fillText(clip(note, FONT), layout.x.get(lane), 29);
  }
}

function drawOverview(view) {
  const [width, height] = [54, scroller.clientHeight];
  const pen = fit(overview, width, height);
  const at = y => y / layout.length * height;
  pen.fillStyle = colors("--panel");
  pen.fillRect(0, 0, width, height);
  pen.fillStyle = colors("--faint");
  pen.globalAlpha = 0.35;
  for (const frame of layout.seen.frames) pen.fillRect(14, at(frame.lines[0].fromY), 26, 1);
  pen.globalAlpha = 1;
  for (const span of layout.seen.spans.filter(isTrouble)) {
    pen.fillStyle = colors(TROUBLES[span.trouble][1]);
    pen.fillRect(span.other === NOTHING ? 42 : 5, at(yOf(span.at)), 6, Math.max(at(yOf(span.to)) - at(yOf(span.at)), 2));
  }
  for (const mark of layout.seen.marks) {
    if (!["bad", "disk", "trouble", "end"].includes(mark.sign)) continue;
    pen.fillStyle = colors(mark.color);
    pen.fillRect(14, at(mark.y) - 1, 26, 2);
  }
  pen.fillStyle = colors("--good");
  for (const [moment] of run.moments) pen.fillRect(0, at(yOf(moment)) - 1, width, 2);
  if (run.broken) {
    pen.fillStyle = colors("--bad");
    pen.fillRect(0, at(yOf(run.broken[2])) - 1.5, width, 3);
  }
  pen.strokeStyle = colors("--ink");
  pen.lineWidth = 1.5;
  pen.strokeRect(2, at(view.top) + 1, width - 4, Math.max(at(view.bottom) - at(view.top) - 2, 6));
}
