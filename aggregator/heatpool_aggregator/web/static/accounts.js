// Money and counts: the last statement, the balance of the accounts, and what came in.

import { ABSENT, count, dayOf, fixed, isNumber, registerKwh, timeOf, zoneName, words } from "/static/figures.js";
import { el, facts, say } from "/static/elements.js";

let shownKey = "";

/** Renews the statement; it is written anew only when another period has closed. */
export function showStatement(statement) {
  if (!statement) return;
  const key = JSON.stringify(statement);
  if (key === shownKey) return;
  shownKey = key;
  const span = `${dayOf(statement.start_ns)}, ${timeOf(statement.start_ns)} – ${timeOf(statement.end_ns)} ${zoneName()}`;
  const done = statement.is_complete ? "● complete" : `▲ ${statement.missing.length} without registers`;
  say(document.getElementById("statement-note"), `${span} · ${done}`);
  const missing = statement.missing.map((one) => el("li", "", el("strong", "", one.site_id), `: ${one.reason}`));
  const box = missing.length ? [el("p", "", "Not billed in this period:"), el("ul", "", ...missing)] : [];
  const place = document.getElementById("statement-missing");
  place.className = missing.length ? "missing" : "";
  place.replaceChildren(...box);
  document.getElementById("statement-region").hidden = !statement.lines.length;
  const groups = statement.totals.flatMap((total) => group(total, statement.lines));
  document.getElementById("statement").replaceChildren(...groups);
}

function group(total, lines) {
  const own = lines.filter((line) => line.virtual_source_id === total.virtual_source_id);
  const head = el("th", "who", el("span", "id", total.virtual_source_id));
  head.scope = "row";
  head.colSpan = 5;
  const sum = el(
    "tr", "sum", head,
    el("td", "n metered", registerKwh(total.energy_wh)), el("td"), el("td", "n", money(total.amount_eur)), el("td"), el("td"),
  );
  return [sum, ...own.map(row)];
}

function row(line) {
  const head = el("th", "who", line.site_id);
  head.scope = "row";
  return el(
    "tr", "", head,
    el("td", "", line.metering_point_id), el("td", "code", line.meter_id),
    el("td", "n metered", registerKwh(line.register_open_wh)), el("td", "n metered", registerKwh(line.register_close_wh)),
    el("td", "n metered", registerKwh(line.energy_wh)), el("td", "n", money(line.price_eur_mwh)),
    el("td", "n", money(line.amount_eur)), el("td", "code", line.agreement_id),
    el("td", "", line.flags.length ? line.flags.map(words).join(", ") : "none"),
  );
}

/** Decimal text as it came: money is never passed through a float. */
function money(text) {
  const [whole, cents = ""] = text.replace("-", "").split(".");
  const grouped = whole.replace(/\B(?=(\d{3})+$)/g, "\u202f");
  return (text.startsWith("-") ? "−" : "") + grouped + (cents ? `.${cents}` : "");
}

/** Renews the balance figure. */
export function showBalance(balance) {
  const error = balance.balance_error_wh;
  const verdict = !isNumber(error) ? "no closed period yet" : error === 0 ? "● every Wh is accounted for" : "▲ look at the worst period";
  const rows = [
    ["Balance error", isNumber(error) ? `${fixed(error, Number.isInteger(error) ? 0 : 3)} Wh` : ABSENT, verdict],
    ["Periods checked", count(balance.periods), "registers, running sums and ledger lines side by side"],
  ];
  const { worst } = balance;
  if (worst && worst.error_wh > 0) {
    rows.push(
      ["Furthest apart", `${fixed(worst.error_wh, 0)} Wh`, `${dayOf(worst.start_ns)}, ${timeOf(worst.start_ns)} – ${timeOf(worst.end_ns)}`],
      ["By registers there", `${registerKwh(worst.registers_wh)} kWh`],
      ["By running sums", `${registerKwh(worst.sources_wh)} kWh`],
      ["By ledger lines", `${registerKwh(worst.lines_wh)} kWh`],
    );
  }
  facts(document.getElementById("balance"), rows);
}

/** Renews the counts of ingest. */
export function showIngest(state) {
  const { ingest } = state;
  const open = ingest.batches_received - ingest.batches_durable - ingest.duplicates_ignored - ingest.refused;
  const lag = state.log_position - state.applied_position;
  facts(document.getElementById("ingest"), [
    ["Batches received", count(ingest.batches_received), "since this aggregator started"],
    ["Durable on disk", count(ingest.batches_durable), open > 0 ? `${count(open)} on their way` : ""],
    ["Repeats ignored", count(ingest.duplicates_ignored), "sent twice, counted once"],
    ["Refused", count(ingest.refused), ingest.refused ? "▲ unreadable, kept aside" : ""],
    ["Open streams", count(ingest.streams)],
    ["Log position", count(state.log_position), lag > 0 ? `${count(lag)} not applied yet` : "all applied"],
  ]);
}
