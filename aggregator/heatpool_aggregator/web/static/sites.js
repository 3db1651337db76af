// The table of sites: four heats side by side, setpoint, and how old the last data is.

import { ABSENT, ago, celsius, countedKwh, flow, isNumber, kiloRough, kiloWithBand, timeOf, words } from "/static/figures.js";
import { el, inStep, mark, say } from "/static/elements.js";

// Cell, and its label where the table becomes one block for each site.
const COLUMNS = {
  class: "Class",
  fused: "Best, kW",
  computed: "Computed, kW",
  reported: "Reported, kW",
  electricHeat: "El. heat, kW",
  electric: "El. power, kW",
  hot: "Hot pipe, °C",
  cold: "Cold pipe, °C",
  flow: "Flow, m³/h",
  energy: "Metered, kWh",
  age: "Last data",
  setpoint: "Setpoint",
};
const TEXT_COLUMNS = new Set(["class", "setpoint"]);
const GOOD_STATES = new Set(["applied", "effect_seen", "renewed"]);
const BAD_STATES = new Set(["refused", "expired", "overridden"]);

const rows = new Map();

/** Renews the table from a state. */
export function showSites(state) {
  const kinds = new Map(state.virtual_sources.map((source) => [source.virtual_source_id, source.kind]));
  const sites = [...state.sites].sort((a, b) => a.site_id.localeCompare(b.site_id, "en", { numeric: true }));
  const groupOf = (site) => (kinds.has(site.virtual_source_id) ? site.virtual_source_id : null);
  const items = [...kinds.keys(), null].flatMap((id) => {
    const own = sites.filter((site) => groupOf(site) === id);
    return own.length ? [{ groupId: id, kind: kinds.get(id) }, ...own] : [];
  });
  inStep(document.getElementById("sites"), items, {
    key: (item) => item.site_id ?? `group ${item.groupId}`,
    make: (item) => (item.site_id ? makeRow(item) : makeGroup(item)),
    renew: (row, item) => item.site_id && renewRow(row, item),
    known: rows,
  });
  const stale = sites.filter((site) => site.is_stale).length;
  say(document.getElementById("sites-note"), `${sites.length} known, ${sites.length - stale} fresh${stale ? `, ${stale} stale` : ""}`);
}

/** Renews the ages as time goes on. */
export function moveAges(nowNs) {
  for (const row of rows.values()) {
    if (!row.ageText) continue;
    const age = isNumber(row.eventNs) ? ago((nowNs - row.eventNs) / 1e9) : "never";
    say(row.ageText, age);
  }
}

function makeGroup({ groupId, kind }) {
  const head = el("th", "who", groupId === null ? "In no virtual source" : `${words(kind)} · ${groupId}`);
  head.scope = "row";
  mark(head, "role", "rowheader");
  const rest = el("td");
  rest.colSpan = Object.keys(COLUMNS).length;
  mark(rest, "role", "cell");
  const node = el("tr", "sum", head, rest);
  mark(node, "role", "row");
  return { node };
}

function makeRow(site) {
  const row = { eventNs: null, cells: {} };
  row.tag = el("span", "tag here", "this machine");
  row.stale = el("span", "tag stale", "▲ stale");
  row.clock = el("span", "tag stale", "");
  const head = el("th", "who", el("span", "id", site.site_id), row.tag, row.stale, row.clock);
  head.scope = "row";
  row.node = el("tr", "", head);
  // Roles are said aloud because a phone's layout takes the table's own away.
  mark(head, "role", "rowheader");
  mark(row.node, "role", "row");
  for (const [name, label] of Object.entries(COLUMNS)) {
    row.cells[name] = el("td", `${name}-cell${TEXT_COLUMNS.has(name) ? "" : " n"}`);
    mark(row.cells[name], "role", "cell");
    row.cells[name].dataset.label = label;
    row.node.append(row.cells[name]);
  }
  row.badge = el("span", "class");
  row.cells.class.append(row.badge);
  row.value = el("span", "estimate");
  row.pm = el("span", "pm");
  row.origin = el("span", "origin");
  row.cells.fused.append(row.value, row.pm, row.origin);
  row.cells.energy.classList.add("metered");
  row.cells.computed.classList.add("estimate");
  row.cells.electricHeat.classList.add("estimate");
  row.ageText = el("span");
  row.cells.age.append(row.ageText);
  row.setpoint = el("span", "state");
  row.setpointNote = el("span", "why");
  row.cells.setpoint.append(row.setpoint, row.setpointNote);
  return row;
}

/** What a site's clock is off, in words; a positive offset is a clock that is behind. */
function clockWord(offset, isHeld) {
  const far = Math.abs(offset);
  const size = far >= 5400 ? `${Math.round(far / 3600)} h` : far >= 90 ? `${Math.round(far / 60)} min` : `${Math.round(far)} s`;
  return `▲ clock ${size} ${offset > 0 ? "behind" : "ahead"}, ${isHeld ? "rows wait" : "corrected"}`;
}

function renewRow(row, site) {
  const { cells } = row;
  row.eventNs = site.event_ns;
  row.tag.hidden = !site.is_this_machine;
  row.stale.hidden = !site.is_stale;
  const off = site.clock_offset_s;
  row.clock.hidden = off === null;
  say(row.clock, off === null ? "" : clockWord(off, site.is_clock_held));
  row.node.classList.toggle("is-stale", site.is_stale);
  row.node.classList.toggle("is-here", site.is_this_machine);
  showClass(row.badge, site.quality_class);
  showHeats(row, site);
  plain(cells.electric, kiloRough(site.electric_w));
  plain(cells.hot, celsius(site.hot_c));
  plain(cells.cold, celsius(site.cold_c));
  plain(cells.flow, flow(site.volume_flow_m3_h));
  plain(cells.energy, countedKwh(site.energy_wh));
  mark(cells.energy, "title", site.meters.map((meter) => `${meter.metering_point_id}: ${meter.meter_id}`).join("; ") || null);
  mark(cells.age, "title", timeOf(site.event_ns));
  showSetpoint(row, site.setpoint);
}

function showClass(badge, name) {
  say(badge, name ?? ABSENT);
  mark(badge, "data-class", name ?? "none");
}

// The best figure is the fused one; where there was nothing to fuse, its origin stands with it.
function showHeats(row, site) {
  const best = kiloWithBand(site.heat_rate_w, site.heat_rate_w_u);
  const isThere = best.value !== ABSENT;
  say(row.value, best.value);
  row.value.classList.toggle("none", !isThere);
  say(row.pm, plusMinus(best));
  say(row.origin, isThere && site.provenance && site.provenance !== "fused" ? words(site.provenance) : "");
  plain(row.cells.computed, kiloRough(site.computed_heat_w));
  plain(row.cells.reported, kiloRough(site.reported_heat_w));
  plain(row.cells.electricHeat, kiloRough(site.electric_heat_w));
}

function plusMinus(heat) {
  return heat.band === "" ? "" : heat.band === "band unknown" ? " ± ?" : ` ± ${heat.band}`;
}

function plain(cell, text) {
  say(cell, text);
  cell.classList.toggle("none", text === ABSENT);
}

function showSetpoint(row, setpoint) {
  mark(row.cells.setpoint, "title", setpoint?.detail || null);
  if (!setpoint) {
    say(row.setpoint, ABSENT);
    say(row.setpointNote, "");
    row.setpoint.className = "none";
    return;
  }
  if (!isNumber(setpoint.heat_rate_w) && !setpoint.applied_heat_rate_w && setpoint.state !== "refused") {
    say(row.setpoint, "○ nothing asked");
    say(row.setpointNote, "");
    row.setpoint.className = "state open";
    return;
  }
  const sign = GOOD_STATES.has(setpoint.state) ? "● " : BAD_STATES.has(setpoint.state) ? "▲ " : "○ ";
  const kind = GOOD_STATES.has(setpoint.state) ? "good" : BAD_STATES.has(setpoint.state) ? "bad" : "open";
  row.setpoint.className = `state ${kind}`;
  say(row.setpoint, sign + words(setpoint.state));
  say(row.setpointNote, ` ${kiloRough(setpoint.heat_rate_w)} kW`);
}
