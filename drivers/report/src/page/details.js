
// ------------------------------------------------------------------------------------------------- what is looked at

const details = document.getElementById("details");

// What is under the pointer: a mark before a frame, a frame before a span.
function itemAt(x, y) {
  let best = null, near = 9;
  for (const mark of layout.seen.marks) {
    if (mark.column === -1) continue;
    const away = Math.hypot(xOfMark(mark) - x, mark.y - y);
    if (away < near) [best, near] = [mark, away];
  }
  if (best) return best;
  near = 6;
  for (const frame of layout.seen.frames) {
    for (const line of frame.lines) {
      if (y < line.fromY - 6 || y > line.toY + 6) continue;
      const away = distance(x, y, line);
      if (away < near) [best, near] = [frame, away];
    }
  }
  if (best) return best;
  const inside = ({ left, width, top, bottom }) => x >= left && x <= left + width && y >= top && y <= bottom;
  return layout.seen.spans.find(span => isTrouble(span) && placesOf(span).some(inside)) || null;
}

function distance(x, y, { fromX, fromY, toX, toY }) {
  const [wide, high] = [toX - fromX, toY - fromY];
  const square = wide * wide + high * high;
  const part = square ? Math.max(0, Math.min(1, ((x - fromX) * wide + (y - fromY) * high) / square)) : 0;
  return Math.hypot(x - fromX - part * wide, y - fromY - part * high);
}

const laneName = lane => run.lanes[lane][0];

function fateWords(frame, copy) {
  const notes = [copy.late ? "held back" : "", copy.damaged ? "damaged on the way" : ""].filter(Boolean).join(", ");
  const after = notes ? `, ${notes}` : "";
  if (copy.fate === ARRIVED) return `arrived at ${clock(copy.at)}, after ${duration(copy.at - frame.at)}${after}`;
  if (copy.fate === LOST) return `lost: ${copy.why}${after}`;
  return `on its way at the end${after}`;
}

// The lane whose name is at this place above the picture.
function laneAt(x) {
  const lane = layout.lanes.find(lane => Math.abs(layout.x.get(lane) - x) < layout.wide / 2);
  return lane === undefined ? null : { type: "lane", lane };
}

// A heading, the color that it has, and rows: a name, what it is, whether it is bad.
function told(item) {
  const rows = [];
  const document = item.doc !== undefined && item.doc !== NOTHING ? [["document", run.documents[item.doc]]] : [];
  if (item.type === "frame") {
    rows.push(["way", `${laneName(item.from)} → ${laneName(item.to)}`], ["sent", clock(item.at)]);
    if (!item.copies.length) rows.push(["fate", "what became of it is not known"]);
    item.copies.forEach((copy, place) =>
      rows.push([place ? "copy" : "fate", fateWords(item, copy), copy.fate === LOST || copy.damaged]));
    return [item.kind, FAMILIES[item.family][1], [...rows, ...document, ...pairs(item.fields)]];
  }
  if (item.type === "lane") {
    const [name, note] = run.lanes[item.lane];
    return [name, "--lane", note ? [["as", note]] : []];
  }
  if (item.type === "mark") {
    return [item.kind, item.color, [["where", laneName(item.lane)], ["when", clock(item.at)], ...document, ...pairs(item.fields)]];
  }
  const where = item.other === NOTHING ? laneName(item.lane) : `between ${laneName(item.lane)} and ${laneName(item.other)}`;
  rows.push(["where", where], ["from", clock(item.at)], ["until", item.open ? "the end" : clock(item.to)]);
  rows.push(["for", duration(item.to - item.at)]);
  return [item.kind, TROUBLES[item.trouble][1], [...rows, ...pairs(item.fields)]];
}

function show(item, x, y) {
  details.hidden = !item;
  if (!item) return;
  const [kind, color, rows] = told(item);
  const heading = element("h2", kind);
  const dot = element("span", "", "dot");
  dot.style.background = `var(${color})`;
  heading.prepend(dot);
  const table = element("table");
  for (const [name, what, bad] of rows) {
    const row = table.insertRow();
    if (bad) row.className = "bad";
    row.append(element("th", name), element("td", what));
  }
  details.replaceChildren(heading, table);
  if (item.type !== "lane") {
    details.append(element("div", item === pinned ? "Esc, or a click beside it, lets go" : "a click keeps this here", "hint"));
  }
  details.classList.toggle("pinned", item === pinned);
  const box = details.getBoundingClientRect();
  const left = x + 18 + box.width > innerWidth ? Math.max(4, x - 18 - box.width) : x + 18;
  details.style.left = left + "px";
  details.style.top = Math.max(4, Math.min(y + 14, innerHeight - box.height - 4)) + "px";
}
