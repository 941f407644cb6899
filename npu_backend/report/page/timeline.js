// The engines of all cores over time, on a canvas: only what is visible is drawn, and what is narrower than a pixel is
// drawn as the share of the pixel that it covers.
const IS_DENSE = RUN.per_core.length > 8;
const GUTTER = IS_DENSE ? 84 : 104, RULER = 22, BAND = 20, PATH_BAND = 12, LANE = IS_DENSE ? 6 : 15, GAP = IS_DENSE ? 5 : 12;
// More pieces of the path than these are not joined by lines.
const JOINED_PIECES = 400;
const LEAST_NS = 50;
const TOTAL_NS = Math.max(1, DATA.timeline.total_ns);
const LANES = DATA.timeline.lanes.map((lane) => ({
  core: lane.core, engine: lane.engine, start: decoded(lane.start, Uint32Array), duration: decoded(lane.duration, Uint32Array),
  origin: decoded(lane.origin, Uint32Array), bytes: decoded(lane.bytes, Uint32Array), opcode: decoded(lane.opcode, Uint8Array),
}));
const ORIGIN_LAYERS = DATA.timeline.origin_layers;
const WAIT = DATA.timeline.wait;
const layerEnds = [];
LAYERS.reduce((end, layer) => { layerEnds.push(end + layer.latency_us * 1000); return end + layer.latency_us * 1000; }, 0);
// From the first to the last work of each layer, which overlaps that of its neighbours; nothing without any.
const layerWork = LAYERS.map(() => null);
for (const lane of LANES) {
  for (let i = 0; i < lane.start.length; ++i) {
    if (lane.opcode[i] === WAIT) continue;
    const layer = ORIGIN_LAYERS[lane.origin[i]], stop = lane.start[i] + lane.duration[i];
    const [from, to] = layerWork[layer] ?? [lane.start[i], stop];
    layerWork[layer] = [Math.min(from, lane.start[i]), Math.max(to, stop)];
  }
}
const layerStart = (index) => (index ? layerEnds[index - 1] : 0);

const view = { from: 0, to: TOTAL_NS, hover: null, colour: "engine", path: true, pending: false };
const host = byId("timeline"), canvas = host.querySelector("canvas"), pen = canvas.getContext("2d");
let theme = {}, width = 0, height = 0;

// Places from top to bottom; a gap stands between cores.
let bottom = RULER + BAND + PATH_BAND + 6;
LANES.forEach((lane, index) => {
  if (index && LANES[index - 1].core !== lane.core) bottom += GAP;
  lane.top = bottom;
  bottom += LANE;
});
height = bottom + 6;
const laneOfPiece = Array.from(PATH.core, (core, piece) =>
  LANES.find((lane) => lane.core === core && lane.engine === DATA.path.engines[PATH.engine[piece]]));

function readTheme() {
  const style = getComputedStyle(document.documentElement);
  const names = ["card", "ink", "quiet", "line", "soft", "accent", "load", "store", "network", "matrix", "vector", "wait", "latency", "signal", "idle"];
  theme = Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
  theme.dark = window.matchMedia("(prefers-color-scheme: dark)").matches;
  theme.layers = LAYERS.map((_, layer) => `hsl(${(layer * 137.5) % 360} 55% ${theme.dark ? 62 : 44}%)`);
}

const toX = (ns) => GUTTER + ((ns - view.from) / (view.to - view.from)) * (width - GUTTER);
const toNs = (x) => view.from + ((x - GUTTER) / (width - GUTTER)) * (view.to - view.from);

function redraw() {
  if (view.pending) return;
  view.pending = true;
  requestAnimationFrame(() => { view.pending = false; draw(); });
}

function draw() {
  const ratio = window.devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    canvas.style.height = `${height}px`;
  }
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.fillStyle = theme.card;
  pen.fillRect(0, 0, width, height);
  drawRuler();
  drawBand();
  LANES.forEach(drawLane);
  if (view.path) drawPath();
  drawLabels();
}

function drawRuler() {
  const rough = ((view.to - view.from) / (width - GUTTER)) * 110;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= rough) * power;
  pen.font = "11px system-ui, sans-serif";
  pen.textAlign = "left";
  pen.textBaseline = "middle";
  for (let ns = Math.ceil(view.from / step) * step; ns <= view.to; ns += step) {
    const x = Math.round(toX(ns)) + 0.5;
    pen.fillStyle = theme.line;
    pen.fillRect(x, 0, 1, height);
    pen.fillStyle = theme.quiet;
    pen.fillText(step >= 1000 ? `${number(ns / 1000)} µs` : `${number(ns / 1000, step >= 100 ? 1 : step >= 10 ? 2 : 3)} µs`, x + 4, 10);
  }
}

// The layers one after the other as their cycles count, strata of several layers framed.
function drawBand() {
  pen.save();
  pen.beginPath();
  pen.rect(GUTTER, 0, width - GUTTER, height);
  pen.clip();
  pen.font = "11px system-ui, sans-serif";
  LAYERS.forEach((layer, index) => {
    const left = toX(layerStart(index)), right = toX(layerEnds[index]);
    if (right < GUTTER || left > width) return;
    pen.globalAlpha = isDimmed(index) ? 0.25 : 1;
    pen.fillStyle = view.colour === "layer" ? theme.layers[index] : index % 2 ? theme.line : theme.soft;
    pen.fillRect(left, RULER, Math.max(right - left, 0.5), BAND - 4);
    if (index === selection.layer) {
      pen.fillStyle = theme.accent;
      pen.globalAlpha = 0.12;
      pen.fillRect(left, RULER, Math.max(right - left, 1), height);
      pen.globalAlpha = 1;
      pen.fillRect(left, RULER + BAND - 4, Math.max(right - left, 1), 2);
    }
    drawName(`${index} ${layer.name}`, Math.max(left, GUTTER), Math.min(right, width));
  });
  pen.globalAlpha = 1;
  for (const [first, last] of strata()) {
    const left = toX(layerStart(first)), right = toX(layerEnds[last]);
    pen.strokeStyle = theme.accent;
    pen.strokeRect(left + 0.5, RULER - 1.5, Math.max(1, right - left - 1), BAND - 1);
  }
  pen.restore();
}

function drawName(text, left, right) {
  const letters = Math.floor((right - left - 6) / 6);
  if (letters < 3) return;
  pen.fillStyle = view.colour === "layer" ? (theme.dark ? "#0c1016" : "#fff") : theme.ink;
  pen.fillText(text.length > letters ? `${text.slice(0, letters - 1)}…` : text, left + 3, RULER + (BAND - 4) / 2);
}

function strata() {
  const groups = [];
  LAYERS.forEach((layer, index) => {
    const last = groups[groups.length - 1];
    if (last && LAYERS[last[1]].stratum === layer.stratum) last[1] = index;
    else groups.push([index, index]);
  });
  return groups.filter(([first, last]) => last > first);
}

const isDimmed = (layer) => selection.layer !== null && layer !== selection.layer;

// Stops of one engine only grow, as its instructions follow each other.
function firstVisible(lane, ns) {
  let low = 0, high = lane.start.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (lane.start[middle] + lane.duration[middle] < ns) low = middle + 1;
    else high = middle;
  }
  return low;
}

function drawLane(lane) {
  const scale = (width - GUTTER) / (view.to - view.from);
  const column = { x: -1, work: 0, wait: 0, paint: "", strength: 1 };
  pen.fillStyle = pen.lastPaint = theme.soft;
  pen.globalAlpha = 0.6;
  pen.fillRect(GUTTER, lane.top, width - GUTTER, LANE - 2);
  for (let i = firstVisible(lane, view.from); i < lane.start.length && lane.start[i] <= view.to; ++i) {
    const left = GUTTER + (lane.start[i] - view.from) * scale, wide = lane.duration[i] * scale;
    const layer = ORIGIN_LAYERS[lane.origin[i]], isWait = lane.opcode[i] === WAIT;
    const paint = isWait ? theme.wait : view.colour === "layer" ? theme.layers[layer] : theme[lane.engine];
    const strength = isDimmed(layer) ? 0.18 : 1;
    if (wide >= 1.5) {
      const from = Math.max(left, GUTTER), to = Math.min(left + wide, width);
      fill(lane, from, to - from - (to - from > 4 ? 0.5 : 0), paint, strength, isWait);
      continue;
    }
    const x = Math.floor(left);
    if (x !== column.x) {
      drawColumn(lane, column);
      column.x = x;
      column.work = column.wait = column.strength = 0;
    }
    column[isWait ? "wait" : "work"] += Math.max(wide, 0.05);
    if (!isWait) column.paint = paint;
    column.strength = Math.max(column.strength, strength);
  }
  drawColumn(lane, column);
  pen.globalAlpha = 1;
}

// A pixel that several spans share, as strong as they cover it.
function drawColumn(lane, column) {
  if (column.x < GUTTER) return;
  const alpha = (covered) => Math.min(1, 0.15 + 0.85 * covered) * column.strength;
  if (column.work) fill(lane, column.x, 1, column.paint, alpha(column.work), false);
  if (column.wait) fill(lane, column.x, 1, theme.wait, alpha(column.wait), true);
}

// Waits are lower than work, so that they are told apart without colours too.
function fill(lane, x, wide, paint, alpha, isWait) {
  if (pen.lastPaint !== paint) pen.fillStyle = pen.lastPaint = paint;
  pen.globalAlpha = alpha;
  pen.fillRect(x, lane.top + (isWait ? LANE / 4 : 0), wide, isWait ? LANE / 3 : LANE - (IS_DENSE ? 1 : 2));
}

// The critical path: a band of its own, and a line under each of its spans; few are joined where they change lanes.
function drawPath() {
  const first = pieceAt(view.from), last = Math.min(pieceAt(view.to), PATH.start.length - 1);
  const isJoined = last - first < JOINED_PIECES;
  pen.save();
  pen.beginPath();
  pen.rect(GUTTER, 0, width - GUTTER, height);
  pen.clip();
  for (let piece = first; piece <= last; ++piece) {
    const left = toX(PATH.start[piece]), wide = toX(PATH.start[piece] + PATH.duration[piece]) - left, lane = laneOfPiece[piece];
    pen.globalAlpha = isDimmed(PATH.layer[piece]) ? 0.25 : 1;
    pen.fillStyle = theme[KIND_NAMES[PATH.kind[piece]]];
    pen.fillRect(left, RULER + BAND, wide, PATH_BAND - 2);
    pen.fillStyle = theme.ink;
    pen.fillRect(left, lane.top + LANE - (IS_DENSE ? 1.5 : 2.5), Math.max(wide, 0.6), IS_DENSE ? 1.5 : 2.5);
    const before = piece > first && laneOfPiece[piece - 1];
    if (!isJoined || !before || before === lane) continue;
    const [top, end] = [before.top, lane.top].sort((a, b) => a - b);
    pen.globalAlpha *= 0.45;
    pen.fillRect(left - 0.5, top + LANE - 2, 1, end - top);
  }
  pen.restore();
  pen.lastPaint = null;
}

function drawLabels() {
  pen.fillStyle = theme.card;
  pen.fillRect(0, 0, GUTTER - 1, height);
  pen.font = "11px system-ui, sans-serif";
  pen.textBaseline = "middle";
  pen.fillStyle = theme.quiet;
  pen.textAlign = "right";
  pen.fillText("layers", GUTTER - 8, RULER + (BAND - 4) / 2);
  if (view.path) pen.fillText("critical path", GUTTER - 8, RULER + BAND + (PATH_BAND - 2) / 2);
  LANES.forEach((lane, index) => {
    pen.textAlign = "right";
    pen.fillStyle = theme.quiet;
    if (!IS_DENSE) pen.fillText(lane.engine, GUTTER - 8, lane.top + LANE / 2 - 1);
    if (index && LANES[index - 1].core === lane.core) return;
    pen.textAlign = "left";
    pen.fillStyle = theme.ink;
    pen.fillText(`core ${lane.core}`, 8, lane.top + (IS_DENSE ? 7 : LANE / 2 - 1));
  });
}

function setView(from, to) {
  const span = Math.min(Math.max(to - from, LEAST_NS), TOTAL_NS);
  view.from = Math.min(Math.max(from, 0), TOTAL_NS - span);
  view.to = view.from + span;
  redraw();
}
function zoom(factor, at = (view.from + view.to) / 2) {
  const span = Math.min(Math.max((view.to - view.from) * factor, LEAST_NS), TOTAL_NS);
  const before = (at - view.from) / (view.to - view.from);
  setView(at - before * span, at + (1 - before) * span);
}
const pan = (share) => setView(view.from + share * (view.to - view.from), view.to + share * (view.to - view.from));
function zoomToLayer(layer) {
  const [from, to] = layerWork[layer] ?? [layerStart(layer), layerEnds[layer]];
  setView(from - Math.max(0.1 * (to - from), LEAST_NS), to + Math.max(0.1 * (to - from), LEAST_NS));
  host.scrollIntoView({ block: "nearest", behavior: "smooth" });
}

// What lies under the pointer: a span, a piece of the path, or a layer of the band.
function under(event) {
  const box = canvas.getBoundingClientRect();
  const x = event.clientX - box.left, y = event.clientY - box.top, ns = toNs(x);
  if (x < GUTTER) return null;
  if (y >= RULER && y < RULER + BAND) {
    const layer = layerEnds.findIndex((end) => end >= ns);
    return layer < 0 ? null : { layer };
  }
  if (view.path && y >= RULER + BAND && y < RULER + BAND + PATH_BAND) {
    const piece = pieceAt(ns);
    return piece < PATH.start.length ? { piece, layer: PATH.layer[piece] } : null;
  }
  const lane = LANES.find((one) => y >= one.top && y < one.top + LANE);
  if (!lane) return null;
  const slack = (1.5 * (view.to - view.from)) / (width - GUTTER);
  const span = firstVisible(lane, ns - slack);
  if (span >= lane.start.length || lane.start[span] > ns + slack) return null;
  return { lane, span, layer: ORIGIN_LAYERS[lane.origin[span]] };
}

function describe(event) {
  const found = under(event);
  if (!found) return hideTip();
  const title = `${found.layer} ${LAYERS[found.layer].name}`;
  if (found.piece !== undefined) return showTip(event, title, pieceLines(found.piece));
  if (!found.lane) return showTip(event, title, layerLines(found.layer));
  const { lane, span } = found, ns = lane.duration[span];
  const node = DATA.timeline.origins[lane.origin[span]];
  const what = lane.opcode[span] === WAIT ? "waits for another core" : DATA.timeline.opcodes[lane.opcode[span]];
  const moved = lane.bytes[span] && `${bytes(lane.bytes[span])}${ns ? `, ${number(lane.bytes[span] / ns, 1)} GB/s` : ""}`;
  showTip(event, title, [
    `core ${lane.core} ${lane.engine}: ${what}`, `at ${number(lane.start[span] / 1000, 3)} µs for ${time(ns / 1000)}`, moved,
    node !== LAYERS[found.layer].name && `of ${node}`,
  ]);
}

function listen() {
  let drag = null;
  canvas.addEventListener("pointerdown", (event) => {
    drag = { x: event.clientX, from: view.from, to: view.to, moved: false };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!drag) return describe(event);
    const dx = event.clientX - drag.x;
    if (Math.abs(dx) > 3) drag.moved = true;
    if (!drag.moved) return;
    host.classList.add("dragging");
    hideTip();
    const shift = (dx / (width - GUTTER)) * (drag.to - drag.from);
    setView(drag.from - shift, drag.to - shift);
  });
  canvas.addEventListener("pointerup", (event) => {
    host.classList.remove("dragging");
    const found = drag && !drag.moved ? under(event) : null;
    if (found) select(found.layer, { scroll: found.layer !== selection.layer });
    else if (drag && !drag.moved) select(null);
    drag = null;
  });
  canvas.addEventListener("pointercancel", () => { drag = null; host.classList.remove("dragging"); });
  canvas.addEventListener("pointerleave", hideTip);
  canvas.addEventListener("dblclick", (event) => { const found = under(event); if (found) zoomToLayer(found.layer); });
  canvas.addEventListener("wheel", (event) => {
    const sideways = event.shiftKey ? event.deltaY || event.deltaX : event.deltaX;
    if (event.ctrlKey || event.metaKey || event.altKey) {
      event.preventDefault();
      zoom(Math.exp(event.deltaY * 0.003), toNs(event.clientX - canvas.getBoundingClientRect().left));
    } else if (Math.abs(sideways) > Math.abs(event.deltaY) || event.shiftKey) {
      event.preventDefault();
      pan(sideways / width);
    }
  }, { passive: false });
  const keys = { w: () => zoom(0.7), s: () => zoom(1 / 0.7), a: () => pan(-0.15), d: () => pan(0.15), f: () => setView(0, TOTAL_NS),
    ArrowLeft: () => pan(-0.15), ArrowRight: () => pan(0.15), Escape: () => select(null) };
  document.addEventListener("keydown", (event) => {
    if (event.target.matches("input, select") || event.ctrlKey || event.metaKey || event.altKey) return;
    const act = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (act) { act(); event.preventDefault(); }
  });
  byId("zoom-in").onclick = () => zoom(0.5);
  byId("zoom-out").onclick = () => zoom(2);
  byId("zoom-fit").onclick = () => setView(0, TOTAL_NS);
  byId("show-path").onchange = (event) => { view.path = event.target.checked; redraw(); };
  byId("colour").onchange = (event) => { view.colour = event.target.value; redraw(); };
}

function showTimeline() {
  const waits = LANES.some((lane) => lane.opcode.includes(WAIT));
  legend("legend", [...new Set(LANES.map((lane) => lane.engine)), ...(waits ? ["wait for another core"] : [])]);
  readTheme();
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readTheme(); redraw(); });
  new ResizeObserver(() => { width = host.clientWidth; redraw(); }).observe(host);
  selection.listeners.push(redraw);
  listen();
}

showHead();
showHost();
if (LAYERS.length) {
  showCores();
  showPath();
  showNetwork();
  showBars();
  makeLayers();
  width = host.clientWidth;
  showTimeline();
  draw();
} else {
  for (const id of ["cores-section", "path-section", "network-section", "timeline-section", "bars-section"]) byId(id).hidden = true;
}
