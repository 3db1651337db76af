// A live chart of one heat rate: values seen since the page opened, gaps as gaps, band of 95 %.
// Drawn as an estimate: thin dashed line inside its band, never the solid stroke of a meter.

import { band, fixed, isNumber, timeOf } from "/static/figures.js";
import { el, say, svg } from "/static/elements.js";

const WIDTH = 420;
const HEIGHT = 132;
const LEFT = 40;
const BOTTOM = 18;
const TOP = 8;
const SPAN_NS = 10 * 60e9; // ten minutes fit on a wall and in memory
const SPAN_LEAST_NS = 60e9;
const ROWS = 12;

/** A chart with its data table; `node` holds the picture, `table` the figures. */
export function makeChart(name) {
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", class: "chart" });
  picture.setAttribute("aria-label", `${name}: no heat rate seen yet`);
  const parts = {
    grid: svg("g", { class: "grid" }),
    band: svg("path", { class: "band" }),
    line: svg("path", { class: "estimate-line" }),
    last: svg("circle", { class: "last", r: "3.5" }),
  };
  picture.append(...Object.values(parts));
  const body = el("tbody");
  const table = el(
    "table", "values",
    el("caption", "", `${name}: last ${ROWS} values seen by this page`),
    el("thead", "", el("tr", "", th("Time"), th("kW", "n"), th("±95 %, kW", "n"))),
    body,
  );
  return { node: picture, table, parts, body, name, points: [] };
}

function th(text, className = "") {
  const cell = el("th", className, text);
  cell.scope = "col";
  return cell;
}

/** Takes a value in W with its u; an absent one, or silence before it, leaves a gap. */
export function addPoint(chart, { atNs, value, u, gapNs }) {
  if (!isNumber(value)) return cut(chart);
  const last = chart.points.at(-1);
  if (last && atNs <= last.atNs) return;
  if (last && atNs - last.atNs > gapNs) cut(chart);
  chart.points.push({ atNs, value: value / 1000, width: (band(u) ?? 0) / 1000 });
  while (chart.points[0].atNs < atNs - SPAN_NS) chart.points.shift();
}

/** Ends the curve: what comes next does not join on. */
export function cut(chart) {
  const last = chart.points.at(-1);
  if (last && last.value !== null) chart.points.push({ atNs: last.atNs, value: null });
}

/** Draws all points up to `nowNs`. */
export function draw(chart, nowNs) {
  const seen = chart.points.filter((point) => point.value !== null);
  if (!seen.length) return;
  const start = Math.min(seen[0].atNs, nowNs - SPAN_LEAST_NS);
  const end = Math.max(nowNs, seen.at(-1).atNs);
  const [low, high] = range(seen);
  const x = (ns) => LEFT + ((ns - start) / (end - start)) * (WIDTH - LEFT - 8);
  const y = (kw) => TOP + ((high - kw) / (high - low)) * (HEIGHT - TOP - BOTTOM);
  const { parts } = chart;
  const runs = runsOf(chart.points);
  parts.band.setAttribute("d", runs.map((run) => bandPath(run, x, y)).join(""));
  parts.line.setAttribute("d", runs.map((run) => linePath(run, x, y)).join(""));
  const last = chart.points.at(-1);
  parts.last.setAttribute("visibility", last.value === null ? "hidden" : "visible");
  parts.last.setAttribute("cx", x(seen.at(-1).atNs).toFixed(1));
  parts.last.setAttribute("cy", y(seen.at(-1).value).toFixed(1));
  drawGrid(parts.grid, { low, high, start, end, y });
  describe(chart, seen);
}

/** A round range round all bands; not from zero, so the axis says where it starts. */
function range(seen) {
  let low = Math.min(...seen.map((point) => point.value - point.width));
  let high = Math.max(...seen.map((point) => point.value + point.width));
  const pad = Math.max((high - low) * 0.15, Math.abs(high) * 0.01, 1e-6);
  return [low - pad, high + pad];
}

function runsOf(points) {
  const runs = [[]];
  for (const point of points) {
    if (point.value === null) runs.push([]);
    else runs.at(-1).push(point);
  }
  return runs.filter((run) => run.length);
}

const at = (x, y) => `${x.toFixed(1)} ${y.toFixed(1)}`;

function linePath(run, x, y) {
  if (run.length === 1) return `M${at(x(run[0].atNs) - 1, y(run[0].value))}h2`;
  return "M" + run.map((point) => at(x(point.atNs), y(point.value))).join("L");
}

function bandPath(run, x, y) {
  const upper = run.map((point) => at(x(point.atNs), y(point.value + point.width)));
  const lower = run.map((point) => at(x(point.atNs), y(point.value - point.width))).reverse();
  return `M${[...upper, ...lower].join("L")}Z`;
}

function drawGrid(grid, { low, high, start, end, y }) {
  const step = roundStep((high - low) / 3);
  const decimals = Math.max(0, -Math.floor(Math.log10(step)));
  const marks = [];
  for (let kw = Math.ceil(low / step) * step; kw <= high; kw += step) {
    const level = y(kw).toFixed(1);
    marks.push(svg("line", { x1: LEFT, x2: WIDTH - 8, y1: level, y2: level }));
    marks.push(svg("text", { x: LEFT - 6, y: +level + 3.5, "text-anchor": "end" }, fixed(kw, decimals)));
  }
  marks.push(svg("text", { x: LEFT, y: HEIGHT - 3 }, timeOf(start)));
  marks.push(svg("text", { x: WIDTH - 8, y: HEIGHT - 3, "text-anchor": "end" }, timeOf(end)));
  marks.push(svg("text", { x: 0, y: HEIGHT - 3 }, "kW"));
  grid.replaceChildren(...marks);
}

function roundStep(rough) {
  const power = 10 ** Math.floor(Math.log10(rough));
  const lead = rough / power;
  return power * (lead < 1.5 ? 1 : lead < 3.5 ? 2 : lead < 7.5 ? 5 : 10);
}

function describe(chart, seen) {
  const minutes = Math.max(1, Math.round((seen.at(-1).atNs - seen[0].atNs) / 60e9));
  const label = `${chart.name}: estimated heat rate over the last ${minutes} min; figures are in the table below`;
  if (chart.node.getAttribute("aria-label") !== label) chart.node.setAttribute("aria-label", label);
  const rows = chart.points.slice(-ROWS).reverse();
  while (chart.body.children.length > rows.length) chart.body.lastChild.remove();
  rows.forEach((point, index) => {
    if (!chart.body.children[index]) chart.body.append(el("tr", "", el("td"), el("td", "n"), el("td", "n")));
    const cells = chart.body.children[index].children;
    const decimals = point.value === null ? 0 : decimalsFor(point.width);
    say(cells[0], timeOf(point.atNs));
    say(cells[1], point.value === null ? "–" : fixed(point.value, decimals));
    say(cells[2], point.value === null || !point.width ? "–" : fixed(point.width, decimals));
  });
}

function decimalsFor(width) {
  if (!(width > 0)) return 1;
  const first = Math.floor(Math.log10(width));
  return (width / 10 ** first < 2.95 ? 1 : 0) - first;
}
