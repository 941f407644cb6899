// The network: every resource in a table and, where nodes lie on a ring or a grid, their links as arrows.
const NETWORK = DATA.network;
const LINK = Object.fromEntries(RUN.links.map((link) => [link.name, link]));
const BUSIEST_LINK = Math.max(...RUN.links.filter((link) => link.kind === "link").map((link) => link.utilization), 1e-9);
const LINK_COLOURS = { link: "network", port: "load", dram: "store", dma: "single" };
const NODE = 34, WRAP = 22;

// Numbers, rows and columns of the nodes; null for what is not drawn.
function gridShape() {
  if (NETWORK?.topology === "ring") return { count: NETWORK.nodes, rows: 1, columns: NETWORK.nodes };
  if (!["mesh", "torus"].includes(NETWORK?.topology)) return null;
  return { count: NETWORK.rows * NETWORK.columns, rows: NETWORK.rows, columns: NETWORK.columns };
}

function drawn(name, attributes, ...children) {
  const made = document.createElementNS(byId("grid").namespaceURI, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// The middle of every node, and how large the picture is.
function nodePlaces(shape) {
  const pitch = shape.count > 36 ? 72 : 88;
  if (NETWORK.topology === "ring") {
    const radius = Math.max(pitch / 2 / Math.sin(Math.PI / shape.count), NODE), middle = radius + NODE / 2 + 16;
    return { size: [2 * middle, 2 * middle], at: (node) => {
      const angle = (2 * Math.PI * node) / shape.count - Math.PI / 2;
      return [middle + radius * Math.cos(angle), middle + radius * Math.sin(angle)];
    } };
  }
  const margin = NODE / 2 + 16 + (NETWORK.topology === "torus" ? WRAP : 0);
  const at = (node) => [margin + pitch * (node % shape.columns), margin + pitch * Math.floor(node / shape.columns)];
  return { size: [2 * margin + pitch * (shape.columns - 1), 2 * margin + pitch * (shape.rows - 1)], at };
}

const linkLines = (link) => [
  `${percent(link.utilization)} of ${number(link.gb_per_s, 1)} GB/s over the run`, `${bytes(link.bytes)} moved`];
const withTip = (shape, title, lines) => {
  shape.addEventListener("mousemove", (event) => showTip(event, title, lines));
  shape.addEventListener("mouseleave", hideTip);
  return shape;
};

// From the edge of one node towards another, on the right of the line between them; the way back runs beside it.
function arrow(link, [x, y], [toX, toY], isNumbered) {
  const length = Math.hypot(toX - x, toY - y), [dx, dy] = [(toX - x) / length, (toY - y) / length];
  const [sx, sy] = [x - 7 * dy, y + 7 * dx];
  const point = (along, aside) => `${sx + along * dx - aside * dy},${sy + along * dy + aside * dx}`;
  const corners = [point(0, -2.5), point(length - 7, -2.5), point(length - 7, -6), point(length, 0), point(length - 7, 6),
    point(length - 7, 2.5), point(0, 2.5)];
  const strength = link.utilization / BUSIEST_LINK;
  const made = drawn("g", { class: "link" },
    drawn("polygon", { points: corners.join(" "), "fill-opacity": link.bytes ? 0.15 + 0.85 * strength : 0 }));
  if (isNumbered && link.utilization >= 0.005) {
    const [tx, ty] = [sx + (length / 2 - 3) * dx - 12 * dy, sy + (length / 2 - 3) * dy + 12 * dx];
    made.append(drawn("text", { x: tx, y: ty, class: "share" }, String(Math.round(100 * link.utilization))));
  }
  return withTip(made, link.name, linkLines(link));
}

function arrows(shape, places) {
  const isNumbered = shape.count <= 36;
  return RUN.links.filter((link) => link.kind === "link").flatMap((link) => {
    const ends = /^node(\d+)-node(\d+)$/.exec(link.name)?.slice(1).map(Number);
    if (!ends) return [];
    const [from, to] = ends.map(places.at);
    const away = [to[0] - from[0], to[1] - from[1]], length = Math.hypot(...away);
    const [dx, dy] = away.map((part) => part / length);
    const isWrap = NETWORK.topology === "torus" && Math.max(...wrapSteps(shape, ends)) > 1;
    const edge = NODE / 2 + 2, beyond = edge + WRAP;
    // A link around the torus leaves the picture and comes back on the other side.
    if (isWrap) return [
      arrow(link, [from[0] - edge * dx, from[1] - edge * dy], [from[0] - beyond * dx, from[1] - beyond * dy], false),
      arrow(link, [to[0] + beyond * dx, to[1] + beyond * dy], [to[0] + edge * dx, to[1] + edge * dy], false)];
    return [arrow(link, [from[0] + edge * dx, from[1] + edge * dy], [to[0] - edge * dx, to[1] - edge * dy], isNumbered)];
  });
}
const wrapSteps = (shape, [a, b]) => [
  Math.abs((a % shape.columns) - (b % shape.columns)), Math.abs(Math.floor(a / shape.columns) - Math.floor(b / shape.columns))];

function nodes(shape, places) {
  const coreOf = new Map(RUN.per_core.map((_, core) => [NETWORK.core_nodes?.[core] ?? core, core]));
  return Array.from({ length: shape.count }, (_, node) => {
    const [x, y] = places.at(node), core = coreOf.get(node), port = LINK[`memory${node}`];
    const figures = RUN.per_core[core];
    const box = { x: x - NODE / 2, y: y - NODE / 2, width: NODE, height: NODE, rx: 5 };
    const busy = figures && RUN.latency_us ? figures.busy_us / RUN.latency_us : 0;
    const made = drawn("g", { class: figures ? "node" : "node empty" }, drawn("rect", { ...box, class: "back" }),
      drawn("rect", { ...box, class: "busy", "fill-opacity": 0.75 * busy }),
      drawn("text", { x, y: y + (port ? -3 : 0) }, figures ? String(core) : "–"));
    if (port) made.append(drawn("rect", { x: x - 14, y: y + 6, width: 28, height: 7, rx: 2, class: "port back" }),
      drawn("rect", { x: x - 14, y: y + 6, width: 28 * Math.min(1, port.utilization), height: 7, rx: 2, class: "port" }));
    return withTip(made, `node ${node}`, [figures ? `core ${core}, busy ${percent(busy)} of the run` : "no core of this run",
      port && `memory port: ${linkLines(port).join(", ")}`]);
  });
}

function drawNetwork() {
  const shape = gridShape();
  if (!shape) return;
  const places = nodePlaces(shape), svg = byId("grid");
  svg.setAttribute("viewBox", `0 0 ${places.size.map(Math.ceil).join(" ")}`);
  svg.style.width = `${Math.ceil(places.size[0] * (shape.count > 36 ? 1 : 1.3))}px`;
  svg.append(...nodes(shape, places), ...arrows(shape, places));
  svg.removeAttribute("hidden");
  const scale = element("span", { title: "the stronger, the busier" }, element("i", { className: "scale" }), `link, 0 to ${percent(BUSIEST_LINK)} used${shape.count > 36 ? "" : "; numbers in %"}`);
  byId("network-legend").append(scale, element("span", {}, element("i", { colour: "load" }), "memory port of a node, as full as used"),
    element("span", {}, element("i", { colour: "busy" }), "core, as strong as it is busy"));
}

function showNetwork() {
  drawNetwork();
  const most = Math.max(1e-9, ...RUN.links.map((link) => link.utilization));
  const columns = [["resource", "word"], ["kind", "word"], ["used", "", "share of what it could carry in the time of the run"],
    ["moved", "", "DRAM's in whole bursts"], ["GB/s", "", "on average"], ["of GB/s", "", "its capacity"]];
  byId("links").append(headRow(columns), element("tbody", {}, ...RUN.links.map((link) => element("tr", {},
    element("td", { className: "word", textContent: link.name }),
    element("td", { className: "word" }, element("i", { colour: LINK_COLOURS[link.kind] }), link.kind),
    element("td", {}, ...filled(percent(link.utilization), link.utilization / most, LINK_COLOURS[link.kind])),
    ...[bytes(link.bytes), number(link.utilization * link.gb_per_s, 2), number(link.gb_per_s, 1)].map((text) => element("td", { textContent: text }))))));
}
