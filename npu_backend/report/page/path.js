// The critical path: what the time of the run is made of, kind by kind and piece by piece.
const PATH = Object.fromEntries(["start", "duration", "core", "layer", "origin"].map((name) => [name, decoded(DATA.path[name], Uint32Array)]));
for (const name of ["engine", "kind"]) PATH[name] = decoded(DATA.path[name], Uint8Array);
const KIND_NAMES = DATA.path.kinds;
const KIND_MEANINGS = {
  load: "data flows from DRAM", store: "data flows to DRAM", network: "data flows between cores", matrix: "the matrix engine computes",
  vector: "the vector engine computes", latency: "set-up of a transfer and the way of its first byte", signal: "a signal is on its way",
  idle: "nothing that an instruction tells",
};

function showPath() {
  const kinds = Object.entries(RUN.critical_path.by_kind).filter(([, us]) => us > 0).sort((a, b) => b[1] - a[1]);
  const share = (us) => percent(us / RUN.critical_path.total_us);
  byId("path-kinds").replaceChildren(...kinds.map(([kind, us]) => element("span", { title: KIND_MEANINGS[kind] },
    element("i", { colour: kind }), `${kind} ${time(us)}, ${share(us)}`)));
  byId("path-bar").replaceChildren(...kinds.map(([kind, us]) => {
    const piece = element("i", { colour: kind, title: `${kind}: ${KIND_MEANINGS[kind]}, ${time(us)}, ${share(us)}` });
    piece.style.flex = `${us} 0 0`;
    return piece;
  }));
  const columns = [["", "word"], ["at µs"], ["for µs"], ["core"], ["engine", "word"], ["layer"], ["node", "word"]];
  byId("segments").append(headRow(columns), element("tbody", {}, ...RUN.critical_path.segments.map(segmentRow)));
}

function segmentRow(segment) {
  const us = segment.end_us - segment.start_us;
  const kind = element("td", { className: "word" }, element("i", { colour: segment.kind }), segment.kind);
  const cells = [[number(segment.start_us, 3)], [number(us, 3)], [segment.core], [segment.engine, "word"], [segment.layer], [segment.node, "word long"]];
  const zoomIn = () => {
    setView((segment.start_us - 0.2 * us) * 1000, (segment.end_us + 0.2 * us) * 1000);
    host.scrollIntoView({ block: "nearest", behavior: "smooth" });
  };
  return element("tr", { title: "click to see it in the timeline", onclick: zoomIn }, kind,
    ...cells.map(([text, className]) => element("td", { textContent: text, className: className ?? "" })));
}

// The piece of the path at a time.
function pieceAt(ns) {
  let low = 0, high = PATH.start.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (PATH.start[middle] + PATH.duration[middle] < ns) low = middle + 1;
    else high = middle;
  }
  return low;
}

function pieceLines(piece) {
  const kind = KIND_NAMES[PATH.kind[piece]];
  return [
    `critical path: ${kind}, ${KIND_MEANINGS[kind]}`,
    `core ${PATH.core[piece]} ${DATA.path.engines[PATH.engine[piece]]}, at ${number(PATH.start[piece] / 1000, 3)} µs for ${time(PATH.duration[piece] / 1000)}`,
    DATA.timeline.origins[PATH.origin[piece]],
  ];
}
