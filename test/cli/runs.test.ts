import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { type RunningCadre, startCadre } from "../support/cadre.ts";
import { startTraceCollector, type TraceCollector } from "../support/trace-collector.ts";

// `cadre runs` and `cadre schedules` as a person or a script calls them,
// against a real server. Each call is a process of its own.
vi.setConfig({ testTimeout: 120_000 });

const program = join(import.meta.dirname, "../../cli/bin/cadre.js");
const home = mkdtempSync(join(tmpdir(), "cadre runs "));
let server: RunningCadre;
let collector: TraceCollector;

beforeAll(async () => {
  server = await startCadre();
  collector = await startTraceCollector();
  writeFileSync(join(home, "sum.yaml"), sum);
  writeFileSync(join(home, "ask.yaml"), ask);
}, 90_000);
afterAll(async () => {
  await server.dispose();
  await collector.close();
  rmSync(home, { recursive: true, force: true });
});

const sum = `
name: sum
steps:
  - name: first
    tool: { tool: calculator, arguments: { expression: { $ref: input.expression } } }
  - name: each
    fan_out:
      over: [1, 2, 3]
      tool: { tool: echo, arguments: { text: { $ref: item } } }
  - name: last
    tool: { tool: echo, arguments: { text: { $ref: steps.first.output.result } } }
`;
const ask = `
name: ask
steps:
  - name: ok
    approval: { prompt: Shall it be? }
  - name: go
    after: [{ step: ok, when: output.approved }]
    signal: { signal: go }
`;

interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

function cadre(...args: readonly string[]): Promise<Ended> {
  const clean = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("CADRE_")));
  const env = { ...clean, HOME: home, NO_COLOR: "1", CADRE_URL: server.url, CADRE_API_KEY: server.adminKey };
  return new Promise((resolve) => {
    const child = execFile(process.execPath, [program, ...args], { cwd: home, env }, (error, stdout, stderr) =>
      resolve({ code: error === null ? 0 : Number(error.code), stdout, stderr }),
    );
    child.stdin?.end();
  });
}

async function json(...args: readonly string[]) {
  const { code, stdout, stderr } = await cadre(...args, "--json");
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  return JSON.parse(stdout);
}

async function startSum(...flags: string[]): Promise<string> {
  const run = await json("runs", "start", "-f", "sum.yaml", "--input", '{"expression":"6 * 7"}', ...flags, "--wait");
  expect(run.state).toBe("RUN_STATE_SUCCEEDED");
  return run.run_id;
}

test("start --wait shows how it goes on, and prints the output alone", async () => {
  const { code, stdout, stderr } = await cadre(
    "runs",
    "start",
    "-f",
    "sum.yaml",
    "--input",
    '{"expression":"6 * 7"}',
    "--wait",
  );
  expect(code).toBe(0);
  expect(JSON.parse(stdout)).toMatchObject({ last: { text: "42" } });
  expect(stderr).toMatch(/run_\w{26} {2}sum\n/);
  expect(stderr).toContain("✓ first");
  expect(stderr).toContain("✓ each[2]");
  expect(stderr).toMatch(/✓ succeeded in [\d.]+ m?s/);
});

test("a run is shown, listed, drawn, exported, verified, replayed and traced", async () => {
  const runId = await startSum("--label", "team=billing", "--max-steps", "50", "--max-duration", "1h");
  const shown = await cadre("runs", "get", runId);
  expect(shown.stdout).toContain("team=billing");
  expect(shown.stdout).toContain("50 steps");
  expect(shown.stdout).toMatch(/each\[2\] +succeeded/);
  const listed = await json("runs", "list", "--state", "succeeded", "--label", "team=billing", "--since", "1h");
  expect(listed.runs.map((run: { run_id: string }) => run.run_id)).toEqual([runId]);
  expect((await cadre("runs", "list", "--name", "nosuch")).stderr).toContain("no such runs");

  expect((await cadre("runs", "graph", runId)).stdout).toContain('s0["first · tool<br>succeeded"]:::succeeded');
  expect(JSON.parse((await cadre("runs", "graph", runId, "--format", "json")).stdout)).toMatchObject({
    edges: [{ from: "first", to: "last" }],
  });

  writeFileSync(join(home, "history.json"), (await cadre("runs", "export", runId)).stdout);
  const { ledger_head: head } = await json("runs", "get", runId);
  expect(await json("runs", "verify", "history.json", "--head", head)).toMatchObject({ intact: true, head });
  writeFileSync(join(home, "keys.json"), (await cadre("runs", "keys")).stdout);
  const signed = await json("runs", "verify", "history.json", "--keys", "keys.json");
  expect(signed).toMatchObject({ intact: true, signature: "verified", signed_by: expect.any(String) });
  expect(await json("runs", "verify", runId)).toMatchObject({ intact: true, head, signed_by: signed.signed_by });
  expect(await cadre("runs", "verify", "history.json", "--keys", "history.json")).toMatchObject({
    code: 2,
    stderr: expect.stringContaining("cadre runs keys"),
  });
  const history = JSON.parse(readFileSync(join(home, "history.json"), "utf8"));
  const [, second] = history.entries;
  second.body = `${second.body.slice(0, 8)}${second.body[8] === "A" ? "B" : "A"}${second.body.slice(9)}`;
  writeFileSync(join(home, "altered.json"), JSON.stringify(history));
  expect(await cadre("runs", "verify", "altered.json")).toMatchObject({
    code: 1,
    stderr: expect.stringContaining("entry 2"),
  });
  expect((await cadre("runs", "replay", runId)).stdout).toMatch(/replays: \d+ entries/);
  expect((await cadre("runs", "replay", "--file", "history.json")).stdout).toMatch(/replays: \d+ entries/);

  const { trace_id: traceId, spans } = await json("runs", "trace", runId, "--otlp", collector.url);
  expect(spans).toBe(7);
  const names = collector.spans.filter((span) => span.traceId === traceId).map(({ name }) => name);
  expect(names.toSorted()).toEqual(["each", "each[0]", "each[1]", "each[2]", "first", "last", "sum"]);
});

test("a run is approved, signalled and watched; it is forked, and deleted when it ended", async () => {
  const { run_id: runId } = await json("runs", "start", "-f", "ask.yaml", "--label", "kind=ask");
  const watched = cadre("runs", "watch", runId);
  await expect
    .poll(async () => (await json("runs", "get", runId)).state, { timeout: 30_000 })
    .toBe("RUN_STATE_WAITING");
  expect((await cadre("runs", "get", runId)).stdout).toContain("waits for an approval: Shall it be?");
  expect(await cadre("runs", "delete", runId)).toMatchObject({
    code: 1,
    stderr: expect.stringContaining("Cancel the run"),
  });
  expect((await cadre("runs", "approve", runId, "ok", "--reason", "fine")).stdout).toBe("ok is approved\n");
  expect((await json("runs", "signal", runId, "go", '{"n":1}')).seq).toMatch(/^\d+$/);
  const { code, stdout, stderr } = await watched;
  expect(code).toBe(0);
  expect(JSON.parse(stdout)).toEqual({ go: { n: 1 } });
  expect(stderr).toContain(`cadre runs approve ${runId} ok`);
  expect(stderr).toMatch(/ok is approved by key_\w+: fine/);

  const { checkpoints } = await json("runs", "checkpoints", runId);
  expect(checkpoints.map(({ step }: { step: string }) => step)).toEqual(["ok", "go"]);
  const fork = await json("runs", "fork", runId, "--checkpoint", "1");
  await cadre("runs", "signal", fork.run_id, "go", '"again"');
  const forked = await cadre("runs", "watch", fork.run_id, "--json");
  expect(forked.code).toBe(0);
  expect(
    forked.stdout
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line))
      .at(-1),
  ).toMatchObject({
    run_ended: { output: { go: "again" } },
  });
});

test("a refused approval fails the run, and watch says so by its exit code", async () => {
  const { run_id: runId } = await json("runs", "start", "-f", "ask.yaml");
  await expect
    .poll(async () => (await json("runs", "get", runId)).state, { timeout: 30_000 })
    .toBe("RUN_STATE_WAITING");
  expect((await cadre("runs", "refuse", runId, "ok")).code).toBe(0);
  expect(await cadre("runs", "watch", runId)).toMatchObject({
    code: 1,
    stderr: expect.stringContaining("APPROVAL_REFUSED"),
  });
});

test("many runs are cancelled and deleted at once, after a look at which", async () => {
  const ids: string[] = [];
  for (let index = 0; index < 3; index += 1) {
    ids.push((await json("runs", "start", "-f", "ask.yaml", "--label", "kind=many")).run_id);
  }
  const choice = ["--all", "--label", "kind=many"];
  expect(await cadre("runs", "cancel", ...choice)).toMatchObject({ code: 2, stderr: expect.stringContaining("--yes") });
  expect(await cadre("runs", "cancel")).toMatchObject({ code: 2 });
  const dry = await cadre("runs", "cancel", ...choice, "--dry-run");
  expect(dry.stdout.trim().split("\n").toSorted()).toEqual(ids.toSorted());
  expect(dry.stderr).toContain("It would cancel 3 runs.");
  expect(await cadre("runs", "cancel", ...choice, "--yes")).toMatchObject({ code: 0, stdout: "cancelled 3 runs\n" });
  for (const runId of ids) {
    await expect
      .poll(async () => (await json("runs", "get", runId)).state, { timeout: 30_000 })
      .toBe("RUN_STATE_CANCELLED");
  }
  const progress = (await cadre("runs", "delete", ...choice, "--yes", "--json")).stdout.trim().split("\n");
  expect(JSON.parse(progress.at(-1) ?? "")).toMatchObject({ run_id: "", done: 3, failed: 0, total: 3 });
  expect((await json("runs", "list", "--label", "kind=many")).runs).toEqual([]);
});

test("a schedule is put, shown by its name, listed and deleted", async () => {
  const put = ["schedules", "put", "nightly", "--cron", "0 3 * * *", "--time-zone", "Europe/Berlin", "-f", "sum.yaml"];
  const made = await json(...put, "--input", '{"expression":"1"}', "--overlap", "queue");
  expect(made.schedule_id).toMatch(/^sch_/);
  expect((await cadre("schedules", "get", "nightly")).stdout).toContain("0 3 * * * in Europe/Berlin");
  expect((await cadre("schedules", "list")).stdout).toContain("nightly");
  expect((await cadre("schedules", "delete", "nightly")).code).toBe(0);
  expect(await cadre("schedules", "get", "nightly")).toMatchObject({
    code: 1,
    stderr: expect.stringContaining("cadre schedules list"),
  });
});

test.each([
  [2, ["runs", "start"], "-f"],
  [2, ["runs", "start", "-f", "nosuch.yaml"], "nosuch.yaml"],
  [2, ["runs", "start", "-f", "sum.yaml", "--input", "{"], "--input"],
  [2, ["runs", "start", "-f", "sum.yaml", "--label", "x"], "--label team=billing"],
  [2, ["runs", "list", "--state", "nosuch"], "Allowed choices"],
  [2, ["runs", "list", "--since", "yesterday"], "2026-02-01"],
  [2, ["runs", "replay"], "--all-open"],
  [1, ["runs", "get", `run_${"0".repeat(26)}`], "List the runs"],
  [1, ["runs", "start", "--agent", "nosuch"], "List the agents"],
  [78, ["runs", "start", "-f", "sum.yaml", "--via", "bus"], "leave --via bus out"],
] as const)("exit code %i: cadre %j names the remedy", async (code, args, part) => {
  const ended = await cadre(...args);
  expect(ended).toMatchObject({ code, stderr: expect.stringContaining(part) });
  expect(ended.stderr).not.toMatch(/^\s+at /m);
});
