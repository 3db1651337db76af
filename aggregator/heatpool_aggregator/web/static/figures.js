// Numbers and times for people: no digit beyond the uncertainty, absent is "–", never 0.

export const ABSENT = "–";
const COVER_95 = 1.96;

/** Half width of the 95 % band from a standard uncertainty, same unit; null if unknown. */
export const band = (u) => (isNumber(u) ? COVER_95 * u : null);

export const isNumber = (x) => typeof x === "number" && Number.isFinite(x);

/** Decimals that a half width supports: one digit, two where the first is 1 or 2. */
function decimalsOf(width) {
  if (!(width > 0)) return 0;
  const first = Math.floor(Math.log10(width));
  const digits = width / 10 ** first < 2.95 ? 2 : 1;
  return digits - 1 - first;
}

/** Number with exactly so many decimals; fewer than none rounds to tens, hundreds. */
export function fixed(x, decimals) {
  if (!isNumber(x)) return ABSENT;
  const step = decimals < 0 ? 10 ** -decimals : 0;
  const rounded = step ? Math.round(x / step) * step : x;
  const text = Math.abs(rounded).toLocaleString("en-GB", {
    minimumFractionDigits: Math.max(0, decimals),
    maximumFractionDigits: Math.max(0, decimals),
  });
  const isNegative = rounded < 0 && /[1-9]/.test(text);
  return (isNegative ? "−" : "") + text.replaceAll(",", "\u202f");
}

/** {value, band} as texts in kilo units, the value cut where its band begins. */
export function kiloWithBand(value, u) {
  if (!isNumber(value)) return { value: ABSENT, band: "" };
  const width = band(u);
  if (width === null) return { value: kiloRough(value), band: "band unknown" };
  const decimals = Math.min(6, decimalsOf(width / 1000));
  return { value: fixed(value / 1000, decimals), band: fixed(width / 1000, decimals) };
}

/** Two significant digits in kilo units, for figures that come without an uncertainty. */
export function kiloRough(value) {
  if (!isNumber(value)) return ABSENT;
  const kilo = value / 1000;
  if (kilo === 0) return "0";
  return fixed(kilo, Math.min(6, 1 - Math.floor(Math.log10(Math.abs(kilo)))));
}

/** Whole Wh as kWh, every counted digit kept. */
export const registerKwh = (wh) => (isNumber(wh) ? fixed(wh / 1000, 3) : ABSENT);

/** Counted Wh as kWh for a headline. */
export const countedKwh = (wh) => (isNumber(wh) ? fixed(wh / 1000, wh < 1e7 ? 1 : 0) : ABSENT);

export const celsius = (c) => fixed(c, 1);
export const flow = (m3h) => (isNumber(m3h) ? fixed(m3h, m3h < 10 ? 2 : 1) : ABSENT);
export const count = (n) => fixed(n, 0);

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric" });
const zoned = new Intl.DateTimeFormat("en-GB", { timeZoneName: "short" });

export const zoneName = () => Intl.DateTimeFormat().resolvedOptions().timeZone;
export const zoneShort = (at = new Date()) =>
  zoned.formatToParts(at).find((part) => part.type === "timeZoneName")?.value ?? "";

const dateOf = (ns) => new Date(ns / 1e6);
export const timeOf = (ns) => (isNumber(ns) ? clock.format(dateOf(ns)) : ABSENT);
export const dayOf = (ns) => (isNumber(ns) ? day.format(dateOf(ns)) : ABSENT);

/** "4 s ago" and the like; coarse, so that it does not flicker. */
export function ago(seconds) {
  if (!isNumber(seconds)) return ABSENT;
  if (seconds < 1.5) return "now";
  if (seconds < 90) return `${Math.round(seconds)} s ago`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min ago`;
  return `${Math.round(seconds / 3600)} h ago`;
}

/** A wire word for people: "swimming_pool" -> "Swimming pool". */
export function words(name) {
  const text = String(name).replaceAll("_", " ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}
