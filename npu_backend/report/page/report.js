"use strict";
// What the page shows of the run: head, cores, bars and the table of layers. All text is set as text, never as markup.
const DATA = JSON.parse(document.getElementById("data").textContent);
const RUN = DATA.run;
const LAYERS = RUN.layers;
const byId = (id) => document.getElementById(id);

const decoded = (text, Kind) => new Kind(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer);

function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key === "colour") made.style.setProperty("--c", `var(--${value})`);
    else made[key] = value;
  }
  made.append(...children);
  return made;
}

const number = (value, digits = 0) =>
  value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
const time = (us) => (us >= 10000 ? `${number(us / 1000, 3)} ms` : us >= 1 ? `${number(us, 1)} µs` : `${number(us * 1000)} ns`);
const percent = (share) => `${number(share * 100, 1)}%`;
function bytes(count) {
  for (const [limit, unit] of [[1 << 20, "MiB"], [1 << 10, "KiB"]])
    if (count >= 0.97 * limit) return `${number(count / limit, 2)} ${unit}`;
  return `${number(count)} B`;
}
const macs = (count) => (count >= 1e9 ? `${number(count / 1e9, 2)} GMAC` : `${number(count / 1e6, 1)} MMAC`);
const plural = (count, noun) => `${number(count)} ${noun}${count === 1 ? "" : "s"}`;

function showTip(event, title, lines) {
  const tip = byId("tip");
  tip.replaceChildren(element("b", { textContent: title }), ...lines.filter(Boolean).map((text) => element("span", { textContent: text })));
  tip.hidden = false;
  const { innerWidth, innerHeight } = window;
  tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8))}px`;
  const below = event.clientY + 18;
  tip.style.top = `${below + tip.offsetHeight > innerHeight - 8 ? Math.max(4, event.clientY - tip.offsetHeight - 12) : below}px`;
}
const hideTip = () => { byId("tip").hidden = true; };

const used = (layer) => (layer.latency_us > 0 && layer.macs ? layer.macs / (layer.latency_us * DATA.peak_macs_per_us) : null);
const share = (layer) => (RUN.latency_us ? layer.latency_us / RUN.latency_us : 0);
function layerLines(index) {
  const layer = LAYERS[index];
  const costs = layer.recompute_us !== null && layer.synchronization_us !== null
    && `computing again ${number(layer.recompute_us, 2)} µs, waiting ${number(layer.synchronization_us, 2)} µs`;
  return [
    `${layer.op}, ${layer.split} over ${plural(layer.cores, "core")}, ${plural(layer.tiles.reduce((a, b) => a + b, 0), "tile")}`,
    `${number(layer.cycles)} cycles, ${time(layer.latency_us)}, ${percent(share(layer))} of the run`,
    `DRAM ${bytes(layer.dram_bytes)}, waits ${number(layer.sync_us, 2)} µs a core`,
    layer.reason, layer.stratum_reason && `stratum ${layer.stratum}: ${layer.stratum_reason}`, costs,
  ];
}

// One layer is selected in the timeline, the bars and the table at once.
const selection = { layer: null, listeners: [] };
function select(layer, { scroll = false } = {}) {
  selection.layer = layer === selection.layer && !scroll ? null : layer;
  selection.listeners.forEach((tell) => tell(selection.layer, scroll));
}

function showHead() {
  byId("title").textContent = `${RUN.model} on ${RUN.machine}`;
  const plan = RUN.plan === RUN.strategy ? "" : `, plan of ${RUN.plan} (faster)`;
  const nodes = `${plural(RUN.npu_ops, "ONNX node")} on the NPU, ${number(RUN.host_ops.length)} on the host`;
  byId("subtitle").textContent = `${plural(RUN.cores, "core")}, strategy ${RUN.strategy}${plan}; ${nodes}`;
  byId("idle-cores").textContent = `${number(RUN.cores_used)} of ${plural(RUN.cores, "core")} used: ${RUN.cores_reason}`;
  byId("idle-cores").hidden = !RUN.cores_reason;
  const bound = RUN.latency_us ? RUN.lower_bound_us / RUN.latency_us : 0;
  const utilization = RUN.latency_us ? RUN.macs / (RUN.latency_us * DATA.peak_macs_per_us) : 0;
  const waits = RUN.synchronization;
  const again = RUN.macs ? RUN.macs_executed / RUN.macs - 1 : 0;
  byId("tiles").append(...[
    ["latency", time(RUN.latency_us), `${number(RUN.cycles)} cycles`],
    ["lower bound", time(RUN.lower_bound_us), `${percent(bound)} of the latency`],
    ["of the MAC peak", percent(utilization), `${number(DATA.peak_macs_per_us / 1e6, 2)} TMAC/s`],
    ["computed", macs(RUN.macs_executed), again > 0.00005 ? `${number(again * 100, 2)}% more than the model's` : "none twice"],
    ["DRAM traffic", bytes(RUN.dram_bytes), RUN.latency_us ? `${number(RUN.dram_bytes / RUN.latency_us / 1000, 1)} GB/s` : ""],
    ["between cores", bytes(RUN.noc_bytes), "over the network"],
    ["waits for others", `${number(waits.mean_us, 2)} µs`, `a core and layer, σ ${number(waits.deviation_us, 2)}, in ${plural(waits.layers, "layer")}`],
    ["scratchpad", bytes(RUN.spm_peak_bytes), "at the peak"],
    ["energy", `${number(RUN.energy_uj, 1)} µJ`, RUN.latency_us ? `${number(RUN.energy_uj / RUN.latency_us, 2)} W on average` : ""],
  ].map(([name, value, more]) => element("div", { className: "tile" },
    element("div", { className: "name", textContent: name }), element("div", { className: "value", textContent: value }),
    element("div", { className: "more", textContent: more }))));
}

function headRow(columns) {
  return element("thead", {}, element("tr", {}, ...columns.map(([name, kind, title]) =>
    element("th", { textContent: name, className: kind ?? "", title: title ?? "" }))));
}

function showCores() {
  const columns = [["core", "word"], ["", "word"], ["busy µs", "", "at least one engine works"],
    ["sync µs", "", "no engine works, one waits for another core"], ["idle µs", "", "the rest"], ["matrix µs"], ["vector µs"],
    ["DRAM load"], ["DRAM store"], ["to other cores"], ["MMAC"]];
  const rows = RUN.per_core.map((core, index) => coreRow(index, core, ""));
  if (rows.length > 1) rows.push(coreRow("all", allCores(), "all"));
  legend("parts", PARTS);
  byId("cores").parentElement.classList.toggle("tall", rows.length > 24);
  byId("cores").append(headRow(columns), element("tbody", {}, ...rows));
}

const PARTS = ["busy", "sync", "idle"];
// Of times the mean, of all else the sum.
const allCores = () => Object.fromEntries(Object.keys(RUN.per_core[0]).map((name) =>
  [name, RUN.per_core.reduce((sum, core) => sum + core[name], 0) / (name.endsWith("_us") ? RUN.per_core.length : 1)]));

function coreRow(name, core, kind) {
  const stack = element("div", { className: "stack" });
  for (const part of PARTS) {
    const piece = element("i", { colour: part, title: `${part} ${time(core[`${part}_us`])}` });
    piece.style.flex = `${Math.max(0, core[`${part}_us`])} 0 0`;
    stack.append(piece);
  }
  const cells = [number(core.busy_us, 1), number(core.sync_us, 1), number(core.idle_us, 1), number(core.matrix_busy_us, 1),
    number(core.vector_busy_us, 1), bytes(core.load_bytes), bytes(core.store_bytes), bytes(core.noc_bytes), number(core.macs / 1e6, 1)];
  const title = kind && "times: mean over the cores; all else: sum";
  return element("tr", { className: kind, title }, element("td", { className: "word", textContent: name }),
    element("td", { className: "graph" }, stack), ...cells.map((text) => element("td", { textContent: text })));
}

// Each name's first word is the colour's.
function legend(target, names) {
  byId(target).replaceChildren(...names.map((name) => element("span", {}, element("i", { colour: name.split(" ")[0] }), name)));
}

function showBars() {
  legend("splits", [...new Set(LAYERS.map((layer) => layer.split))]);
  for (const [name, value, text] of [["cycles", (layer) => layer.cycles, number], ["DRAM", (layer) => layer.dram_bytes, bytes]]) {
    const most = Math.max(1, ...LAYERS.map(value));
    const columns = element("div", { className: "columns" }, ...LAYERS.map((layer, index) => {
      const bar = element("i", { colour: layer.split });
      bar.style.height = `${(100 * value(layer)) / most}%`;
      const column = element("div", { onclick: () => select(index, { scroll: true }), onmouseleave: hideTip,
        onmousemove: (event) => showTip(event, `${index} ${layer.name}`, layerLines(index)) }, bar);
      selection.listeners.push((chosen) => column.classList.toggle("selected", chosen === index));
      return column;
    }));
    byId("bars").append(element("div", { className: "row-of-bars" },
      element("div", { className: "label" }, name, element("br"), `up to ${text(most)}`), columns));
  }
}

// A name that may be broken behind its separators.
const breakable = (name) => name.split(/(?<=[/_.])/).flatMap((part) => [part, element("wbr")]);
const filled = (text, part, colour) => {
  const bar = element("span", { className: "fill", colour });
  bar.style.width = `${100 * part}%`;
  return [text, bar];
};
const cost = (us) => (us === null ? "" : number(us, 2));
const mostCycles = Math.max(1, ...LAYERS.map((layer) => layer.cycles));
const mostBytes = Math.max(1, ...LAYERS.map((layer) => layer.dram_bytes));
const hasStrata = LAYERS.some((layer, index) => layer.stratum_reason || (index && layer.stratum === LAYERS[index - 1].stratum));
const hasCosts = LAYERS.some((layer) => layer.recompute_us !== null || layer.synchronization_us !== null);
// Name, class, what it sorts by, what it shows, its meaning; columns without anything to show are left out.
const COLUMNS = [
  ["layer", "", (l, i) => i, (l, i) => [i]],
  hasStrata && ["stratum", "stratum", (l) => l.stratum, (l) => [l.stratum], "layers of one stratum follow each other without synchronisation"],
  ["node", "word long", (l) => l.name, (l) => breakable(l.name)],
  ["operators", "word kinds", (l) => l.op, (l) => [l.op]],
  ["split", "word", (l) => l.split, (l) => [element("i", { colour: l.split }), `${l.split}/${l.cores}`], "direction and number of cores"],
  ["cycles", "", (l) => l.cycles, (l) => filled(number(l.cycles), l.cycles / mostCycles, "matrix"), "by how much the layer moves the end of the run"],
  ["share", "", (l) => l.latency_us, (l) => [percent(share(l))], "of the latency"],
  ["used", "", (l) => used(l) ?? -1, (l) => [used(l) === null ? "" : percent(used(l))], "of all cores' multiply-accumulates at their peak"],
  ["path µs", "", (l, i) => RUN.critical_path.by_layer[i], (l, i) => [number(RUN.critical_path.by_layer[i], 1)], "of the critical path; all layers add up to the latency"],
  ["wait µs", "", (l) => l.sync_us, (l) => [l.sync_us ? number(l.sync_us, 2) : ""], "how long a core stands still for others, mean over the cores"],
  ["DRAM", "", (l) => l.dram_bytes, (l) => filled(bytes(l.dram_bytes), l.dram_bytes / mostBytes, "load")],
  ["tiles", "", (l) => l.tiles.reduce((a, b) => a + b, 0), (l) => [l.tiles.reduce((a, b) => a + b, 0)], "of all cores"],
  hasCosts && ["recompute µs", "", (l) => l.recompute_us ?? -1, (l) => [cheaper(l.recompute_us, l.synchronization_us)], "what computing the overlap on several cores costs"],
  hasCosts && ["wait saved µs", "", (l) => l.synchronization_us ?? -1, (l) => [cheaper(l.synchronization_us, l.recompute_us)], "what the synchronisation costs that this would save; the cheaper of the two is green"],
  ["because", "word why", (l) => l.reason, (l) => [element("span", { textContent: l.reason }), element("span", { textContent: l.stratum_reason })],
    "why it is divided so, and why its stratum runs on or ends"],
].filter(Boolean);

function cheaper(own, other) {
  return element("span", { className: own !== null && other !== null && own < other ? "win" : "", textContent: cost(own) });
}

const order = { column: 0, descending: false };
const rowOf = LAYERS.map((layer, index) => element("tr", {
  onclick: () => select(index), ondblclick: () => zoomToLayer(index),
}, ...COLUMNS.map(([, kind, , cells]) => element("td", { className: kind }, ...cells(layer, index)))));

function bracketStrata(shown) {
  const strata = shown.map((index) => LAYERS[index].stratum);
  shown.forEach((index, place) => {
    const before = strata[place - 1] === strata[place], after = strata[place + 1] === strata[place];
    const kind = before && after ? "middle" : before ? "last" : after ? "first" : "";
    rowOf[index].querySelectorAll("td.stratum").forEach((cell) => { cell.className = `stratum ${kind}`; });
  });
}

function showLayers() {
  const wanted = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const shown = [...LAYERS.keys()].filter((index) => {
    const layer = LAYERS[index];
    const text = `${index} ${layer.name} ${layer.op} ${layer.split} ${layer.reason} ${layer.stratum_reason}`.toLowerCase();
    return wanted.every((word) => text.includes(word));
  });
  const key = COLUMNS[order.column][2];
  shown.sort((a, b) => {
    const [x, y] = [key(LAYERS[a], a), key(LAYERS[b], b)];
    return (x < y ? -1 : x > y ? 1 : 0) * (order.descending ? -1 : 1) || a - b;
  });
  bracketStrata(shown);
  byId("layers").tBodies[0].replaceChildren(...shown.map((index) => rowOf[index]));
  byId("count").textContent = shown.length === LAYERS.length ? plural(LAYERS.length, "layer") : `${shown.length} of ${plural(LAYERS.length, "layer")}`;
}

function sortBy(column) {
  const isNumber = typeof COLUMNS[column][2](LAYERS[0], 0) === "number";
  // Numbers are first sought from the top, but for those that number.
  order.descending = order.column === column ? !order.descending : isNumber && !["layer", "stratum"].includes(COLUMNS[column][0]);
  order.column = column;
  showOrder();
  showLayers();
}

function showOrder() {
  [...byId("layers").tHead.rows[0].cells].forEach((cell, place) =>
    cell.setAttribute("aria-sort", place !== order.column ? "none" : order.descending ? "descending" : "ascending"));
}

function makeLayers() {
  const head = headRow(COLUMNS.map(([name, kind, , , title]) => [name, `sortable ${kind.replace("stratum", "")}`, title]));
  [...head.rows[0].cells].forEach((cell, column) => {
    cell.tabIndex = 0;
    cell.onclick = () => sortBy(column);
    cell.onkeydown = (event) => { if (event.key === "Enter") sortBy(column); };
  });
  byId("layers").append(head, element("tbody"));
  byId("filter").oninput = showLayers;
  selection.listeners.push((chosen, scroll) => rowOf.forEach((row, index) => {
    row.classList.toggle("selected", index === chosen);
    if (index === chosen && scroll) {
      const box = row.closest(".tall");
      box.scrollTop = row.offsetTop - box.clientHeight / 2;
    }
  }));
  showOrder();
  showLayers();
}

function showHost() {
  byId("host-section").hidden = !RUN.host_ops.length;
  byId("host").append(headRow([["node", "word"], ["operator", "word"], ["because", "word"]]), element("tbody", {},
    ...RUN.host_ops.map((op) => element("tr", {}, ...[op.name, op.op, op.reason].map((text, place) =>
      element("td", { className: place ? "word why" : "word long", textContent: text }))))));
}
