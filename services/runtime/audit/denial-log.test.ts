import type { AuditEvent } from "@cadre/gen/cadre/credentials/v1/audit_pb";
import { PrometheusExporter, PrometheusSerializer } from "@opentelemetry/exporter-prometheus";
import { MeterProvider } from "@opentelemetry/sdk-metrics";
import { pino } from "pino";
import { afterEach, expect, test } from "vitest";
import { newId } from "../ids/id.ts";
import { createDenialLog, type Denial, type DenialLog } from "./denial-log.ts";

const log = pino({ level: "silent" });
const orgId = newId("org");
const running: DenialLog[] = [];
afterEach(async () => {
  for (const denials of running.splice(0)) await denials.stop();
});

function start(append: (event: AuditEvent) => Promise<void> = async () => {}) {
  const exporter = new PrometheusExporter({ preventServerStart: true });
  const meter = new MeterProvider({ readers: [exporter] }).getMeter("t");
  const clock = { nowMs: Date.now() };
  const rows: AuditEvent[] = [];
  const sink = {
    async append(event: AuditEvent) {
      await append(event);
      rows.push(event);
    },
  };
  const denials = createDenialLog({ sink, log, meter, now: () => clock.nowMs });
  running.push(denials);
  const metrics = async () => new PrometheusSerializer().serialize((await exporter.collect()).resourceMetrics);
  return { denials, rows, clock, metrics };
}

function denial(given: Partial<Denial>): Denial {
  return {
    type: "limit.exceeded",
    reason: "LIMIT_EXCEEDED",
    orgId,
    actor: "key_1",
    action: "a/B",
    resource: "limit/sessions",
    source: "192.0.2.1",
    requestId: "",
    traceId: "",
    ...given,
  };
}

test.each(["limit.exceeded", "quota.exceeded"])(
  "%s is one row a minute for each subject and limit, whatever was called from wherever",
  async (type) => {
    const { denials, rows, clock } = start();
    for (let index = 0; index < 500; index++) {
      await denials.record(denial({ type, action: `a/${index}`, source: `192.0.2.${index % 250}` }));
    }
    await denials.record(denial({ type, resource: "limit/tools" }));
    await denials.record(denial({ type, actor: "key_2" }));
    await denials.record(denial({ type, orgId: newId("org") }));
    expect(rows.map(({ count }) => count)).toEqual([1, 1, 1, 1]);
    clock.nowMs += 60_001;
    await denials.flush();
    expect(rows.map(({ count }) => count)).toEqual([1, 1, 1, 1, 499]);
    expect(rows[4]).toMatchObject({ type, orgId, actor: "key_1", resource: "limit/sessions" });
    // A new minute, a new row.
    await denials.record(denial({ type }));
    expect(rows).toHaveLength(6);
  },
);

test("nobody waits for the log to take a flood; a refused right is on record first", async () => {
  const { promise: written, resolve: take } = Promise.withResolvers<void>();
  const { denials, rows } = start(() => written);
  for (const type of ["limit.exceeded", "quota.exceeded", "conn.abuse"]) {
    // It settles with what is due now: no timer runs in between.
    let settled = false;
    void denials.record(denial({ type })).then(() => {
      settled = true;
    });
    await new Promise((resolve) => setImmediate(resolve));
    expect(settled).toBe(true);
  }
  let denied = false;
  const recorded = denials.record(denial({ type: "authz.denied" })).then(() => {
    denied = true;
  });
  await new Promise((resolve) => setImmediate(resolve));
  expect(denied).toBe(false);
  take();
  await recorded;
  expect(rows).toHaveLength(4);
});

test("a flood of strangers, each from an address of its own, is bounded rows and no lost count", async () => {
  const { denials, rows, clock, metrics } = start();
  const abuse = (source: string) =>
    denials.record(denial({ type: "conn.abuse", reason: "resets", orgId: "", actor: "", action: "", source }));
  for (let index = 0; index < 20_000; index++) await abuse(`2001:db8:${index.toString(16)}::/64`);
  expect(rows.length).toBeLessThanOrEqual(1_001);
  // An org's own denials still have kinds of their own.
  await denials.record(denial({}));
  expect(rows.at(-1)).toMatchObject({ orgId, resource: "limit/sessions" });
  clock.nowMs += 60_001;
  await denials.flush();
  const counted = rows.filter(({ type }) => type === "conn.abuse").reduce((sum, { count }) => sum + count, 0);
  expect(counted).toBe(20_000);
  expect(rows.find(({ reason, count }) => reason === "MANY" && count > 1)).toMatchObject({ source: "", count: 18_999 });
  expect(await metrics()).toMatch(/cadre_audit_merged_total\{[^}]*type="conn.abuse"[^}]*\} 19000/);
  // Room again in the next minute.
  await abuse("192.0.2.1");
  expect(rows.at(-1)).toMatchObject({ reason: "resets", source: "192.0.2.1" });
});

test("what could not be written is counted as a metric, and written later with its count", async () => {
  let isDown = true;
  const { denials, rows, metrics } = start(async () => {
    if (isDown) throw new Error("down");
  });
  for (let index = 0; index < 7; index++) await denials.record(denial({}));
  await denials.flush();
  expect(rows).toEqual([]);
  expect(await metrics()).toMatch(/cadre_audit_write_failures_total\{[^}]*type="limit.exceeded"[^}]*\} 2/);
  isDown = false;
  await denials.flush();
  expect(rows).toMatchObject([{ count: 7 }]);
});
