// The page: hears states, shows them, and says so when they stop coming.

import { ago, isNumber, timeOf, zoneName, zoneShort } from "/static/figures.js";
import { mark, say } from "/static/elements.js";
import { listen } from "/static/line.js";
import { cutCharts, moveCharts, showSources } from "/static/sources.js";
import { moveAges, showSites } from "/static/sites.js";
import { showBalance, showIngest, showStatement } from "/static/accounts.js";

const byId = (id) => document.getElementById(id);
const seen = { clock: "", dataNs: null, messagePeriodS: 60, wasLive: false, drawnMs: -Infinity };

function onState(state) {
  seen.messagePeriodS = state.message_period_s;
  const times = state.sites.map((site) => site.event_ns).filter(isNumber);
  seen.dataNs = times.length ? Math.max(...times) : null;
  seen.clock = state.clock_suspect;
  showSources(state);
  showSites(state);
  showStatement(state.statement);
  showBalance(state.balance);
  showIngest(state);
  seen.drawnMs = -Infinity;
}

function onPulse(line) {
  const nowNs = (Date.now() + line.offsetMs) * 1e6;
  if (seen.wasLive && !line.isLive) cutCharts();
  seen.wasLive = line.isLive;
  showLine(line, nowNs);
  say(byId("now"), timeOf(nowNs));
  say(byId("zone"), zoneShort());
  mark(byId("zone"), "title", zoneName());
  if (performance.now() - seen.drawnMs < 1000) return;
  seen.drawnMs = performance.now();
  moveAges(nowNs);
  if (line.isLive) moveCharts(nowNs);
}

function showLine(line, nowNs) {
  const ageS = isNumber(seen.dataNs) ? (nowNs - seen.dataNs) / 1e9 : null;
  const isOld = ageS !== null && ageS > 3 * seen.messagePeriodS;
  const state = !line.everSeen && !line.isLive ? "waiting" : !line.isLive ? "lost" : isOld ? "old" : "live";
  mark(document.documentElement, "data-line", state);
  say(byId("live-word"), { waiting: "Connecting", lost: "Not live", old: "Old data", live: "Live" }[state]);
  say(byId("live-age"), isNumber(seen.dataNs) ? `last data ${timeOf(seen.dataNs)}, ${ago(ageS)}` : "no data yet");
  const when = isNumber(seen.dataNs) ? `${timeOf(seen.dataNs)} ${zoneShort()}` : "never";
  const texts = {
    lost: `Not live: the aggregator does not answer. All figures are from ${when} and may have changed. Trying again.`,
    old: `Old data: the aggregator answers, but no site has sent since ${when}.`,
  };
  const banner = byId("banner");
  // A clock that is wrong makes data look old.
  const text = line.isLive && seen.clock ? `Clock: ${seen.clock}. Nothing is corrected or settled until then.` : texts[state];
  banner.hidden = text === undefined;
  if (text !== undefined) say(banner, text);
}

// Without TLS nobody has logged in.
byId("account").hidden = location.protocol !== "https:";
listen("/v1/events", { onState, onPulse });
