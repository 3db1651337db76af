// The cards of the virtual sources: heat now, temperatures, energy, members, and a live chart.

import { ABSENT, celsius, countedKwh, fixed, flow, isNumber, kiloWithBand, timeOf, words } from "/static/figures.js";
import { el, facts, icon, inStep, mark, say } from "/static/elements.js";
import { addPoint, cut, draw, makeChart } from "/static/chart.js";

const CLASS_WORDS = {
  A: "verified heat meter",
  B: "calibrated flow and temperatures",
  C: "learned coefficients",
  D: "prior coefficients",
  E: "rating only",
};
const SPEAK_MS = 15000; // a voice that repeats each second is of no use

const cards = new Map();

/** Renews all cards from a state. */
export function showSources(state) {
  const parent = document.getElementById("sources");
  parent.querySelector(".empty")?.remove();
  inStep(parent, state.virtual_sources, {
    key: (source) => source.virtual_source_id,
    make: makeCard,
    renew: (card, source) => renewCard(card, source, state),
    known: cards,
  });
  if (!state.virtual_sources.length) parent.append(el("p", "empty", "No virtual source to show: none is configured, or sites of other owners are in it too."));
}

/** Redraws the charts as time goes on. */
export function moveCharts(nowNs) {
  for (const card of cards.values()) draw(card.chart, nowNs);
}

/** The line was lost: curves end here. */
export function cutCharts() {
  for (const card of cards.values()) cut(card.chart);
}

function makeCard(source) {
  const name = source.virtual_source_id;
  const chart = makeChart(name);
  const card = {
    chart,
    spokenMs: -Infinity,
    badge: el("span", "class"),
    value: el("span", "value estimate"),
    band: el("span", "band-text"),
    voice: el("span", "sr"),
    hot: el("span", "value"),
    cold: el("span", "value"),
    energy: el("span", "value metered"),
    members: el("span", "value"),
    membersNote: el("span", "why"),
    origin: el("dl", "facts wide"),
  };
  card.voice.setAttribute("aria-live", "polite");
  card.voice.setAttribute("aria-atomic", "true");
  const title = el("h3", "", icon(source.kind), el("span", "", el("span", "kind", words(source.kind)), el("span", "id", name)));
  card.node = el(
    "article", "card",
    el("div", "card-head", title, card.badge),
    el("div", "headline", el("p", "big", card.value, unit("kW", "th")), el("p", "pm", card.band), card.voice),
    el("div", "chart-frame", chart.node),
    el(
      "dl", "quad",
      entry("Hot pipe", "hot", card.hot, " °C"),
      entry("Cold pipe", "cold", card.cold, " °C"),
      entry("Energy so far", "", card.energy, unit("kWh", "th"), el("span", "why block", "since the first reading")),
      entry("Members fresh", "", card.members, card.membersNote),
    ),
    el("details", "more", el("summary", "", "Values and origin"), chart.table, card.origin),
  );
  card.node.setAttribute("aria-label", `${words(source.kind)} ${name}`);
  return card;
}

function unit(name, below) {
  return el("span", "unit", name, el("sub", "", below));
}

function entry(name, className, ...value) {
  return el("div", className, el("dt", "", name), el("dd", "", ...value));
}

function renewCard(card, source, state) {
  const heat = kiloWithBand(source.heat_rate_w, source.heat_rate_w_u);
  const isThere = heat.value !== ABSENT;
  say(card.value, heat.value);
  card.value.classList.toggle("none", !isThere);
  say(card.band, bandText(heat, isThere));
  say(card.badge, source.quality_class ? `Class ${source.quality_class}` : "No class");
  mark(card.badge, "data-class", source.quality_class ?? "none");
  mark(card.badge, "title", CLASS_WORDS[source.quality_class] ?? "no estimate has a quality class now");
  say(card.hot, celsius(source.hot_c));
  say(card.cold, celsius(source.cold_c));
  say(card.energy, countedKwh(source.energy_wh));
  say(card.members, `${source.fresh_count} of ${source.members_count}`);
  const short = source.members_count - source.fresh_count;
  say(card.membersNote, short > 0 ? ` ▲ ${short} stale` : "");
  card.node.classList.toggle("short", short > 0);
  addPoint(card.chart, {
    atNs: state.at_ns,
    value: source.heat_rate_w,
    u: source.heat_rate_w_u,
    gapNs: 3e9 * state.message_period_s,
  });
  speak(card, source, heat, isThere);
  showOrigin(card.origin, source, state);
}

function bandText(heat, isThere) {
  if (!isThere) return "no fresh member gives a heat rate";
  return heat.band === "band unknown" ? heat.band : `± ${heat.band} kW with 95 %`;
}

function speak(card, source, heat, isThere) {
  const nowMs = performance.now();
  if (nowMs - card.spokenMs < SPEAK_MS) return;
  card.spokenMs = nowMs;
  const figure = isThere ? `${heat.value} kilowatts, ${bandText(heat, isThere)}` : "no heat rate";
  const grade = isNumber(source.hot_c) ? ` at ${fixed(source.hot_c, 0)} degrees` : "";
  say(card.voice, `${words(source.kind)}: ${figure}${grade}`);
}

function showOrigin(list, source, state) {
  const members = state.sites.filter((site) => site.virtual_source_id === source.virtual_source_id);
  const meters = members.flatMap((site) => site.meters.map((meter) => `${site.site_id}: ${meter.meter_id}`));
  facts(list, [
    ["Heat rate", "Sum of the fresh members' fused heat rates", `provenance: ${source.provenance ?? ABSENT}`],
    ["Boundary", "The members' coolant loops; energy: the members' metering points"],
    ["Volume flow", `${flow(source.volume_flow_m3_h)} m³/h`],
    ["Coverage", isNumber(source.coverage_frac) ? `${fixed(100 * source.coverage_frac, 0)} % of the members give a heat rate` : ABSENT],
    ["All data up to", timeOf(source.watermark_ns)],
    ["Membership version", String(source.version)],
    ["Meters", meters.length ? meters.join("; ") : ABSENT],
  ]);
}
