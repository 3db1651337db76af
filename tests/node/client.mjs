// An independent site and an independent reader: only the .proto files are ours.
//
// Says hello, sends six rows and a meter register, sends them once more as a bad line would, waits
// until both are durable, and reads the virtual source that the site is a member of. Prints JSON.
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const PATIENCE_MS = 60_000;
const NS_PER_S = 1_000_000_000n;
const PERIOD_NS = 10n * NS_PER_S;
const ROWS = 6;
const LOOP = "rack";
// What each row says of the loop, in the unit of its quantity; null: no value.
const FIGURES = [
  { quantity: "heat_rate_w", exponent: -1, of: (row) => 12_000 + 10 * row },
  { quantity: "heat_rate_w_u", exponent: -1, of: () => 240 },
  { quantity: "hot_c", exponent: -3, of: (row) => (row === 2 ? null : 57.25) },
  { quantity: "cold_c", exponent: -3, of: () => 47.25 },
  { quantity: "quality", exponent: 0, of: () => 2 },
  { quantity: "provenance", exponent: 0, of: () => 4 },
];

const { values: asked } = parseArgs({
  options: {
    address: { type: "string" },
    site: { type: "string" },
    source: { type: "string" },
    protos: { type: "string" },
    identity: { type: "string" }, // key, certificate and CA in one PEM file; absent: plain
  },
});

function loaded() {
  const files = ["telemetry", "query"].map((name) => `heatpool/v1/${name}.proto`);
  const options = { keepCase: true, longs: String, enums: String, oneofs: true };
  const definition = loader.loadSync(files, { ...options, includeDirs: [asked.protos] });
  return grpc.loadPackageDefinition(definition).heatpool.v1;
}

function credentials() {
  if (!asked.identity) return grpc.credentials.createInsecure();
  const pem = readFileSync(asked.identity, "utf8");
  const blocks = pem.match(/-----BEGIN [^-]+-----[^-]+-----END [^-]+-----\n?/g);
  const [key] = blocks.filter((block) => block.includes("PRIVATE KEY"));
  const certificates = blocks.filter((block) => block.includes("BEGIN CERTIFICATE"));
  const [root] = certificates.slice(-1);
  const chain = certificates.slice(0, -1).join("");
  return grpc.credentials.createSsl(Buffer.from(root), Buffer.from(key), Buffer.from(chain));
}

/** Channel after channel: first cell, then differences; an absent cell repeats its predecessor. */
function columns() {
  const cells = [];
  const bits = Buffer.alloc(Math.ceil((FIGURES.length * ROWS) / 8));
  FIGURES.forEach(({ exponent, of }, channel) => {
    let before = 0;
    for (let row = 0; row < ROWS; row += 1) {
      const value = of(row);
      const cell = value === null ? before : Math.round(value * 10 ** -exponent);
      cells.push(String(cell - before));
      before = cell;
      const place = channel * ROWS + row;
      if (value !== null) bits[place >> 3] |= 1 << (place & 7);
    }
  });
  return { cells, valid_bits: bits };
}

function hello(nowNs, boots) {
  const state = { first_seq: "1", next_seq: "2" };
  const channels = FIGURES.map(({ quantity, exponent }) => ({ loop_id: LOOP, quantity, exponent }));
  return {
    hello: {
      wire_version: 1,
      agent_version: "node",
      sent_ns: String(nowNs),
      codecs: ["PAYLOAD_CODEC_NONE"],
      sites: [
        {
          site_id: asked.site,
          capability: { rejection_capacity_w: 20_000, loop_ids: [LOOP] },
          schemas: [{ schema_id: 1, boot_id: boots.telemetry, channels }],
          spools: [
            { kind: "SPOOL_KIND_TELEMETRY", boot_id: boots.telemetry, ...state },
            { kind: "SPOOL_KIND_BILLING", boot_id: boots.billing, ...state },
          ],
        },
      ],
    },
  };
}

function messages(nowNs) {
  const telemetry = {
    site_index: 0,
    seq: "1",
    schema_id: 1,
    start_ns: String(nowNs - BigInt(ROWS - 1) * PERIOD_NS),
    step_ns: String(PERIOD_NS),
    n_rows: ROWS,
    sent_ns: String(nowNs),
    codec: "PAYLOAD_CODEC_NONE",
    ...columns(),
  };
  const row = {
    metering_point_id: `${asked.site}-heat`,
    meter_id: "KAM-12345678-1B-04",
    event_ns: String(nowNs),
    raw: "4711",
    exponent: 3,
    modulus: "100000000",
    reason: "REGISTER_REASON_START",
    chain_sha256: randomBytes(32),
  };
  const registers = { site_index: 0, seq: "1", rows: [row], sent_ns: String(nowNs) };
  return [{ registers }, { telemetry }];
}

/** Resolves to what became durable: boot id -> sequence number. */
function sendAll(stub) {
  return new Promise((resolve, reject) => {
    const nowNs = BigInt(Date.now()) * 1_000_000n;
    const boots = { telemetry: randomBytes(8).toString("hex"), billing: randomBytes(8).toString("hex") };
    const durable = {};
    const stream = stub.Stream();
    stream.on("error", reject);
    stream.on("data", (down) => {
      if (down.hello_reply) {
        const sent = messages(nowNs);
        [...sent, ...sent].forEach((message) => stream.write(message));
        return;
      }
      for (const one of down.ack?.spools ?? []) durable[one.boot_id] = Number(one.durable_seq);
      const refused = down.ack?.refused ?? [];
      if (refused.length > 0) reject(new Error(`refused: ${JSON.stringify(refused)}`));
      if (Object.values(boots).every((boot) => durable[boot] >= 1)) {
        stream.end();
        resolve({ telemetry: durable[boots.telemetry], billing: durable[boots.billing] });
      }
    });
    stream.write(hello(nowNs, boots));
  });
}

/** Resolves to the virtual source once the site's heat is in it. */
function readSource(stub) {
  return new Promise((resolve, reject) => {
    const stream = stub.WatchSourceStatus({});
    stream.on("error", reject);
    stream.on("data", ({ virtual_sources: sources }) => {
      const found = sources.find((one) => one.virtual_source_id === asked.source);
      if (found?.fresh_count !== 1) return;
      stream.removeAllListeners("error");
      stream.on("error", () => {}); // our own cancelling
      stream.cancel();
      resolve(found);
    });
  });
}

async function main() {
  const api = loaded();
  const secrets = credentials();
  const [sites, reader] = [api.TelemetryService, api.QueryService].map(
    (Service) => new Service(asked.address, secrets),
  );
  const durable = await sendAll(sites);
  const source = await readSource(reader);
  process.stdout.write(`${JSON.stringify({ durable, source })}\n`);
  [sites, reader].forEach((one) => one.close());
}

setTimeout(() => {
  process.stderr.write(`nothing came of it within ${PATIENCE_MS / 1000} s\n`);
  process.exit(1);
}, PATIENCE_MS).unref();
main().catch((error) => {
  process.stderr.write(`${error.message}\n`);
  process.exit(1);
});
