
// ------------------------------------------------------------------------------------------------- the head

const byId = name => document.getElementById(name);

function tellHead() {
  document.title = `antiphon: ${run.title}`;
  byId("title").textContent = run.title;
  const verdict = byId("verdict");
  verdict.textContent = run.broken ? `broke the law “${run.broken[0]}”: ${run.broken[1]}` : run.verdict;
  verdict.className = run.broken ? "bad" : "";
  byId("to-broken").hidden = !run.broken;
  byId("command").hidden = !run.command;
  byId("command").querySelector("code").textContent = run.command || "";
  for (const [name, what] of run.facts) {
    const fact = element("div");
    fact.append(element("dt", name), element("dd", what));
    byId("facts").append(fact);
  }
  for (const [name, what] of run.plans) {
    const [folded, list] = [element("details", undefined, "menu"), element("div", undefined, "list")];
    list.append(element("pre", what));
    folded.append(element("summary", name), list);
    byId("texts").append(folded);
  }
}

// ------------------------------------------------------------------------------------------------- menus

// A menu of what can be shown: each entry is its value, its words, how often it comes, and its color.
function menu(name, title, chosen, groups) {
  const root = byId(name);
  const [summary, list] = [root.querySelector("summary"), root.querySelector(".list")];
  const boxes = [];
  const retell = () => {
    const on = boxes.filter(box => box.checked).length;
    summary.textContent = on === boxes.length ? title : `${title}: ${on} of ${boxes.length}`;
    root.classList.toggle("narrowed", on < boxes.length);
  };
  const change = () => { retell(); relay(); };
  const both = element("div", undefined, "both");
  for (const [words, on] of [["all", true], ["none", false]]) {
    const button = element("button", words);
    button.type = "button";
    button.onclick = () => {
      for (const box of boxes) { box.checked = on; if (on) chosen.add(box.meaning); else chosen.delete(box.meaning); }
      change();
    };
    both.append(button);
  }
  list.append(both);
  for (const [heading, entries] of groups) {
    if (heading) list.append(element("div", heading, "heading"));
    for (const [value, words, count, color] of entries) {
      const label = element("label");
      const box = element("input");
      box.type = "checkbox";
      box.checked = chosen.has(value);
      box.meaning = value;
      box.onchange = () => { if (box.checked) chosen.add(value); else chosen.delete(value); change(); };
      boxes.push(box);
      label.append(box);
      if (color) { const dot = element("span", "", "dot"); dot.style.background = `var(${color})`; label.append(dot); }
      label.append(element("span", words, "words"), element("span", count, "count"));
      list.append(label);
    }
  }
  root.hidden = boxes.length === 0;
  retell();
}

function counted(items, key) {
  const counts = new Map();
  for (const item of items) counts.set(key(item), (counts.get(key(item)) || 0) + 1);
  return counts;
}

function makeMenus() {
  const about = counted([...frames, ...marks], item => item.doc);
  const at = counted([...frames.flatMap(frame => frame.from === frame.to ? [frame.from] : [frame.from, frame.to]), ...marks.map(mark => mark.lane)], lane => lane);
  menu("lanes-menu", "lines", shown.lanes, [["", run.lanes.map(([name, note], lane) => [lane, note ? `${name} (${note})` : name, at.get(lane) || 0])]]);
  const documents = run.documents.map((name, place) => [place, name, about.get(place) || 0]);
  menu("documents-menu", "documents", shown.documents, [["", [...documents, [NOTHING, "about no document", about.get(NOTHING) || 0]]]]);
  const kinds = counted(frames, frame => frame.kind);
  const families = FAMILIES.map(([words, color], family) => {
    const own = [...new Set(frames.filter(frame => frame.family === family).map(frame => frame.kind))];
    return [words, own.map(kind => [kind, kind, kinds.get(kind), color])];
  });
  menu("messages-menu", "messages", shown.messages, families.filter(([, own]) => own.length));
  const signs = SIGNS.map(([sign, color]) => {
    const own = counted(marks.filter(mark => mark.sign === sign), mark => mark.kind);
    return [SIGN_WORDS[sign], [...own].map(([kind, count]) => [kind, kind, count, color])];
  });
  menu("marks-menu", "marks", shown.marks, signs.filter(([, own]) => own.length));
}

function makeLegend() {
  const list = byId("legend");
  const line = (words, paint) => {
    const row = element("div");
    const sample = element("canvas");
    row.append(sample, element("span", words));
    list.append(row);
    paint(fit(sample, 58, 20));
  };
  list.replaceChildren(element("div", "frames", "heading"));
  const sample = (copies, family = 0) => pen => {
    const frame = { family, copies };
    copies.forEach((copy, place) => {
      const part = copy.fate === LOST ? 0.7 : 1;
      drawCopy(pen, frame, copy, { fromX: 3, fromY: 4, toX: 3 + 51 * part, toY: 4 + (place ? 13 : 9) * part, whole: copy.fate === ARRIVED }, false);
    });
  };
  FAMILIES.forEach(([words], family) => line(words, sample([{ fate: ARRIVED }], family)));
  line("lost on the way", sample([{ fate: LOST }]));
  line("arrived twice", sample([{ fate: ARRIVED }, { fate: ARRIVED }]));
  line("held back: others may overtake it", sample([{ fate: ARRIVED, late: 1 }]));
  line("damaged on the way", sample([{ fate: ARRIVED, damaged: 1 }]));
  list.append(element("div", "on a line", "heading"));
  for (const [sign, color] of SIGNS) line(SIGN_WORDS[sign], pen => drawMark(pen, sign, color, 29, 10, false));
  list.append(element("div", "for some time", "heading"));
  for (const [words, color] of TROUBLES.filter(([, color]) => color)) {
    line(words, pen => { pen.globalAlpha = 0.35; pen.fillStyle = colors(color); pen.fillRect(4, 2, 50, 16); });
  }
}

// ------------------------------------------------------------------------------------------------- moving

// Lays everything out anew; what stood at `anchor`, in pixels below the upper edge, stays there.
function relay(anchor = HEAD + 20) {
  const at = timeAt(scroller.scrollTop + anchor);
  const length = byId("length");
  lay(scroller.clientWidth);
  length.style.height = layout.length + "px";
  length.style.width = layout.width > scroller.clientWidth ? layout.width + "px" : "auto";
  scroller.scrollTop = yOf(at) - anchor;
  draw();
}

function zoomBy(factor, anchor = scroller.clientHeight / 2) {
  zoom = Math.max(1e-6, Math.min(200, zoom * factor));
  relay(anchor);
}

function showAll() {
  zoom = 1;
  for (let turn = 0; turn < 3; turn++) {
    lay(scroller.clientWidth);
    zoom = Math.min(1, zoom * (scroller.clientHeight - 90) / Math.max(layout.length - HEAD - 74, 1));
  }
  relay();
  scroller.scrollTop = 0;
  draw();
}

function goTo(y) { scroller.scrollTop = y - scroller.clientHeight / 3; }

function toTrouble(direction) {
  const places = layout.seen.marks.filter(mark => ["bad", "disk", "trouble", "end"].includes(mark.sign)).map(mark => mark.y);
  places.push(...layout.seen.spans.filter(isTrouble).map(span => yOf(span.at)));
  if (run.broken) places.push(yOf(run.broken[2]));
  const here = scroller.scrollTop + scroller.clientHeight / 3;
  const ahead = places.filter(y => (y - here) * direction > 4);
  if (ahead.length) goTo(direction > 0 ? Math.min(...ahead) : Math.max(...ahead));
}

function inPicture(event) {
  const box = canvas.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top + scroller.scrollTop];
}

function look(event) {
  const inside = event.clientY - scroller.getBoundingClientRect().top > HEAD;
  const [x, y] = inPicture(event);
  const item = inside ? itemAt(x, y) : null;
  scroller.classList.toggle("over", item !== null);
  if (!pinned && !inside) return show(laneAt(x), event.clientX, event.clientY);
  if (!pinned) show(item, event.clientX, event.clientY);
  if (item !== hovered) { hovered = item; draw(); }
}

function letGo() {
  pinned = hovered = null;
  show(null);
  draw();
}

let drag = null;

scroller.addEventListener("pointerdown", event => {
  if (event.button === 0 && event.pointerType === "mouse") {
    drag = { x: event.clientX, y: event.clientY, left: scroller.scrollLeft, top: scroller.scrollTop, moved: false };
  }
});
addEventListener("pointermove", event => {
  if (!drag) return;
  const [x, y] = [event.clientX - drag.x, event.clientY - drag.y];
  if (!drag.moved && Math.hypot(x, y) < 4) return;
  drag.moved = true;
  scroller.classList.add("dragged");
  [scroller.scrollLeft, scroller.scrollTop] = [drag.left - x, drag.top - y];
});
addEventListener("pointerup", event => {
  const click = drag && !drag.moved && scroller.contains(event.target);
  drag = null;
  scroller.classList.remove("dragged");
  if (!click) return;
  pinned = null;
  look(event);
  pinned = hovered;
  show(pinned, event.clientX, event.clientY);
  draw();
});
scroller.addEventListener("mousemove", event => { if (!drag || !drag.moved) look(event); });
scroller.addEventListener("mouseleave", () => { if (!pinned) letGo(); });
scroller.addEventListener("scroll", () => { if (!pinned) { hovered = null; show(null); } draw(); });
scroller.addEventListener("wheel", event => {
  if (!event.ctrlKey && !event.metaKey) return;
  event.preventDefault();
  zoomBy(Math.exp(-event.deltaY / 300), event.clientY - scroller.getBoundingClientRect().top);
}, { passive: false });

const jump = event => { scroller.scrollTop = event.offsetY / overview.clientHeight * layout.length - scroller.clientHeight / 2; };
overview.addEventListener("pointerdown", event => { overview.setPointerCapture(event.pointerId); jump(event); });
overview.addEventListener("pointermove", event => { if (event.buttons & 1) jump(event); });

byId("in").onclick = () => zoomBy(1.5);
byId("out").onclick = () => zoomBy(1 / 1.5);
byId("usual").onclick = () => { zoom = 1; relay(scroller.clientHeight / 2); };
byId("all").onclick = showAll;
byId("next").onclick = () => toTrouble(1);
byId("previous").onclick = () => toTrouble(-1);
byId("to-broken").onclick = () => goTo(yOf(run.broken[2]));
byId("idle").onchange = event => { shortens = event.target.checked; relay(scroller.clientHeight / 2); };
const KEYS = {
  "+": () => zoomBy(1.5), "=": () => zoomBy(1.5), "-": () => zoomBy(1 / 1.5), "0": byId("usual").onclick, f: showAll,
  n: () => toTrouble(1), p: () => toTrouble(-1), Escape: letGo,
};
addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || !Object.hasOwn(KEYS, event.key)) return;
  if (event.key === "Escape") document.querySelectorAll(".menu[open]").forEach(open => { open.open = false; });
  KEYS[event.key]();
  event.preventDefault();
});
// One menu at a time, and none when the picture is used.
addEventListener("pointerdown", event => {
  document.querySelectorAll(".menu[open]").forEach(open => { if (!open.contains(event.target)) open.open = false; });
  if (pinned && !details.contains(event.target) && !scroller.contains(event.target)) letGo();
});
addEventListener("resize", () => relay());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readColors(); makeLegend(); draw(); });

readColors();
tellHead();
makeMenus();
makeLegend();
lay(scroller.clientWidth);
relay();
if (run.broken) goTo(yOf(run.broken[2]));
