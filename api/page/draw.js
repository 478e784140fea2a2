// Puts texts, lists, tables and trends into the document. Texts are only ever set as text: some come from outside.

const INTERVAL_S = 1;
const SAMPLES = 180;
const SVG = "http://www.w3.org/2000/svg";

const byId = (id) => document.getElementById(id);

function setText(element, text, tone = "") {
  if (element.textContent !== text) element.textContent = text;
  for (const each of ["good", "warn", "bad"]) element.classList.toggle(each, each === tone);
}

/** Pairs of a name and a text, and how that is to look. */
function fillList(list, pairs) {
  while (list.children.length < pairs.length) {
    const pair = document.createElement("div");
    pair.append(document.createElement("dt"), document.createElement("dd"));
    list.append(pair);
  }
  while (list.children.length > pairs.length) list.lastElementChild.remove();
  pairs.forEach(([name, text, tone], place) => {
    const [term, described] = list.children[place].children;
    setText(term, name);
    setText(described, text, tone);
  });
}

/** Rows stay the same elements while their key is there, so that focus and selection stay where they are. */
function fillTable(table, rows, add = () => {}) {
  const body = table.tBodies[0];
  const old = new Map([...body.rows].map((row) => [row.dataset.key, row]));
  table.parentElement.hidden = !rows.length;
  rows.forEach((row, place) => {
    const shown = old.get(row.key) ?? newRow(table, row.key, row.cells.length);
    old.delete(row.key);
    if (body.rows[place] !== shown) body.insertBefore(shown, body.rows[place] ?? null);
    row.cells.forEach((text, column) => setText(cellOf(shown, column), text, row.tones?.[column]));
    add(shown, row);
  });
  for (const gone of old.values()) gone.remove();
}

function newRow(table, rowKey, columns) {
  const row = document.createElement("tr");
  row.dataset.key = rowKey;
  for (let column = 0; column < columns; column += 1) {
    const cell = document.createElement(column ? "td" : "th");
    const head = table.tHead.rows[0].cells[column];
    if (!column) cell.scope = "row";
    cell.className = head.className;
    cell.append(document.createElement("span"));
    row.append(cell);
  }
  return row;
}

const cellOf = (row, column) => row.cells[column].lastElementChild;

/** A bar beside the progress, and a way to end the request. */
function addToRequest(row, { key: id, done, total }) {
  if (row.cells.length === 7) {
    const bar = document.createElement("progress");
    bar.setAttribute("aria-label", `Progress of ${id}`);
    row.cells[3].prepend(bar, " ");
    const end = document.createElement("button");
    end.type = "button";
    end.textContent = "End";
    end.setAttribute("aria-label", `End ${id}`);
    row.insertCell().append(end);
  }
  const bar = row.cells[3].firstElementChild;
  bar.hidden = !total;
  bar.max = total || 1;
  bar.value = done;
}

// --- trends ---

const samples = new Map();

function drawTrend(name, value, words) {
  const past = samples.get(name) ?? [];
  past.push(value ?? 0);
  if (past.length > SAMPLES) past.shift();
  samples.set(name, past);
  const highest = Math.max(...past);
  const figure = figureOf(name);
  const span = seconds(past.length * INTERVAL_S);
  setText(figure.lastElementChild, `${name} ${words(value)}${DOT}at most ${words(highest)} in ${span}`);
  const first = SAMPLES - past.length;
  const points = past.map((each, place) => `${first + place},${39 - (highest ? (each / highest) * 38 : 0)}`);
  figure.querySelector("polyline").setAttribute("points", points.join(" "));
}

function figureOf(name) {
  const found = [...byId("trends").children].find((each) => each.dataset.key === name);
  if (found) return found;
  const figure = document.createElement("figure");
  figure.dataset.key = name;
  const picture = document.createElementNS(SVG, "svg");
  picture.setAttribute("viewBox", `0 0 ${SAMPLES - 1} 40`);
  picture.setAttribute("preserveAspectRatio", "none");
  picture.setAttribute("aria-hidden", "true");
  picture.append(document.createElementNS(SVG, "polyline"));
  figure.append(picture, document.createElement("figcaption"));
  byId("trends").append(figure);
  return figure;
}
