import { type ChildProcess, execFile, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type FakeCadre, fakeKey, startFakeCadre } from "../support/fake-cadre.ts";
import { fakeSessionId } from "../support/fake-session-service.ts";

const program = join(import.meta.dirname, "../../cli/bin/cadre.js");
// A directory of its own, with a space: no profile and no key file of this machine.
const home = mkdtempSync(join(tmpdir(), "cadre cli "));
let server: FakeCadre;

beforeAll(async () => {
  server = await startFakeCadre();
});
afterAll(async () => {
  await server.stop();
  rmSync(home, { recursive: true, force: true });
});

interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

interface Started {
  readonly child: ChildProcess;
  readonly ended: Promise<Ended>;
  stdout(): string;
  stderr(): string;
}

function start(args: readonly string[], environment: Readonly<Record<string, string>> = {}): Started {
  const clean = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("CADRE_")));
  const env = { ...clean, HOME: home, XDG_CONFIG_HOME: join(home, "config"), NO_COLOR: "1", ...environment };
  const child = spawn(process.execPath, [program, ...args], { cwd: home, env, stdio: ["pipe", "pipe", "pipe"] });
  let stdout = "";
  let stderr = "";
  child.stdout.on("data", (chunk: Buffer) => (stdout += chunk));
  child.stderr.on("data", (chunk: Buffer) => (stderr += chunk));
  const ended = new Promise<Ended>((resolve) => child.once("close", (code) => resolve({ code, stdout, stderr })));
  return { child, ended, stdout: () => stdout, stderr: () => stderr };
}

function cadre(...args: readonly string[]): Promise<Ended> {
  const { child, ended } = start(args, { CADRE_URL: server.url, CADRE_API_KEY: fakeKey });
  child.stdin?.end();
  return ended;
}

test("a message is answered on standard output, without what was void; tools are told on standard error", async () => {
  const { code, stdout, stderr } = await cadre("chat", "--message", "tool 6 * 7");
  expect({ code, stdout }).toEqual({ code: 0, stdout: "6 * 7\n" });
  expect(stderr).toContain('calculator(expression: "6 * 7")');
  expect(stderr).toContain("→ 42");
});

test("--json prints one line that holds the turn", async () => {
  const { code, stdout, stderr } = await cadre("chat", "--message", "echo Hello", "--json");
  expect(code).toBe(0);
  expect(stderr).toBe("");
  expect(JSON.parse(stdout)).toMatchObject({
    session_id: fakeSessionId,
    turn_id: expect.stringMatching(/^run_/),
    state: "succeeded",
    answer: "Hello",
    usage: { input_tokens: "3" },
  });
});

test("a message may come from standard input", async () => {
  const { child, ended } = start(["chat", "--message", "-"], { CADRE_URL: server.url, CADRE_API_KEY: fakeKey });
  child.stdin?.end("echo from a pipe");
  expect(await ended).toMatchObject({ code: 0, stdout: "from a pipe\n" });
});

test("a turn that failed exits 1 and says why", async () => {
  expect(await cadre("chat", "--message", "fail")).toMatchObject({
    code: 1,
    stdout: "",
    stderr: expect.stringContaining("the provider is down"),
  });
});

test("Ctrl-C cancels the turn, and says which tools may still run", async () => {
  const { child, ended, stderr } = start(["chat", "--message", "hang"], {
    CADRE_URL: server.url,
    CADRE_API_KEY: fakeKey,
  });
  const sent = server.sessions.keys.length;
  await expect.poll(() => server.sessions.keys.length).toBe(sent + 1);
  // The handler for the signal is there once the stream is.
  await expect.poll(() => server.sessions.open).toBeGreaterThan(0);
  child.kill("SIGINT");
  expect(await ended).toMatchObject({ code: 1 });
  expect(stderr()).toContain("slow may still run");
});

test("a conversation goes on over a restart of the server", async () => {
  const { child, ended, stdout, stderr } = start(["chat"], { CADRE_URL: server.url, CADRE_API_KEY: fakeKey });
  child.stdin?.write("echo first\n");
  await expect.poll(stdout).toContain("first\n");
  child.stdin?.write("hang\n");
  await expect.poll(stdout).toContain("well");
  await server.stop();
  await expect.poll(stderr).toContain("connecting again");
  await server.start();
  child.kill("SIGINT");
  await expect.poll(stderr).toContain("cancelled");
  child.stdin?.end("echo second\n");
  expect(await ended).toMatchObject({ code: 0, stdout: expect.stringContaining("second\n") });
});

test.each([
  [2, ["nosuch"], "unknown command"],
  [2, ["keys", "issue"], "--name"],
  [2, ["chat", "--json"], "--json needs --message"],
  [2, ["tools", "call", "calculator", "{"], "no JSON object"],
  [1, ["tools", "show", "nosuch"], "cadre tools list"],
  [1, ["tools", "call", "calculator", '{"fail":true}'], "it broke"],
  [69, ["models", "list", "--url", "http://127.0.0.1:9"], "npm start"],
  [77, ["models", "list", "--api-key", "wrong"], "cadre login"],
  [78, ["models", "list", "--url", "nonsense"], "--url"],
  [78, ["models", "list", "--profile", "nosuch"], "cadre login"],
] as const)("exit code %i: cadre %j names the remedy", async (code, args, part) => {
  const ended = await cadre(...args);
  expect(ended).toMatchObject({ code, stderr: expect.stringContaining(part) });
  expect(ended.stderr).not.toMatch(/^\s+at /m);
});

test("an older Node.js hands over to the one that was installed, with arguments, output and exit code", async () => {
  const pretend = `Object.defineProperty(process, "versions", { value: { ...process.versions, node: "20.20.2" } })`;
  const options = [`--import=data:text/javascript,${encodeURIComponent(pretend)}`, program];
  const run = (...args: readonly string[]) =>
    new Promise<Ended>((resolve) => {
      execFile(process.execPath, [...options, ...args], { cwd: home }, (error, stdout, stderr) =>
        resolve({ code: error === null ? 0 : Number(error.code), stdout, stderr }),
      );
    });
  expect(await run("--version")).toMatchObject({ code: 0, stdout: expect.stringMatching(/^\d+\.\d+\.\d+\n$/) });
  expect(await run("keys", "issue")).toMatchObject({ code: 2 });
});

test("a failure is JSON where JSON was asked for", async () => {
  const { stderr } = await cadre("models", "list", "--json", "--api-key", "wrong");
  expect(JSON.parse(stderr)).toMatchObject({ error: { reason: "UNAUTHENTICATED" } });
});

test("login checks the key and keeps it for its owner only; it goes to that server only", async () => {
  const { code, stdout } = await start(["login", "--url", server.url, "--api-key", fakeKey]).ended;
  expect({ code, stdout }).toMatchObject({ code: 0, stdout: expect.stringContaining("Acme as owner") });
  const path = join(home, "config/cadre/credentials.json");
  expect(statSync(path).mode & 0o777).toBe(0o600);
  expect(await start(["models", "list", "--json"]).ended).toMatchObject({ code: 0 });
  // The same machine under another name is another server.
  const elsewhere = server.url.replace("127.0.0.1", "localhost");
  expect(await start(["models", "list", "--url", elsewhere]).ended).toMatchObject({ code: 77 });
  const refused = await start(["login", "--url", server.url, "--api-key", "wrong"]).ended;
  expect(refused.code).toBe(77);
  expect(readFileSync(path, "utf8")).toContain(fakeKey);
  rmSync(path);
});

test("the key file of a server on this machine will do", async () => {
  const data = mkdtempSync(join(home, "data "));
  writeFileSync(join(data, "admin.key"), `${fakeKey}\n`, { mode: 0o600 });
  expect(await start(["models", "list", "--url", server.url, "--data", data]).ended).toMatchObject({ code: 0 });
});

test("an agent and a tool are registered from files, and a misspelt field is refused", async () => {
  const agent = join(home, "agent.yaml");
  writeFileSync(agent, "name: helper\nmodel: scripted\ntools: [calculator]\nlimits: { max_duration: 5m }\n");
  const registered = await cadre("agents", "register", "-f", agent, "--json");
  expect(JSON.parse(registered.stdout)).toMatchObject({
    definition: { name: "helper", tools: ["calculator"], limits: { max_duration: "300s" } },
  });
  expect((await cadre("agents", "show", "helper")).stdout).toContain("scripted");
  writeFileSync(agent, "name: helper\nmodle: scripted\n");
  expect(await cadre("agents", "register", "-f", agent)).toMatchObject({
    code: 2,
    stderr: expect.stringContaining("modle"),
  });
  const tool = join(home, "tool.yaml");
  writeFileSync(tool, "name: order_status\ndescription: Looks.\nside_effects: none\ninput_schema: { type: object }\n");
  expect(await cadre("tools", "register", "-f", tool)).toMatchObject({ code: 0 });
});

test("keys are issued, listed and revoked; the secret is shown once", async () => {
  const issued = await cadre("keys", "issue", "--name", "ci", "--scope", "sessions.*", "agents.read", "--json");
  const { key, secret } = JSON.parse(issued.stdout);
  expect({ secret, scopes: key.scopes }).toEqual({
    secret: "cdr_dev_new_secret",
    scopes: ["sessions.*", "agents.read"],
  });
  const listed = await cadre("keys", "list");
  expect(listed.stdout).toContain("ci");
  expect(listed.stdout).not.toContain(secret);
  expect(await cadre("keys", "revoke", key.key_id)).toMatchObject({ code: 0 });
  expect((await cadre("keys", "list")).stdout).toContain("revoked");
});

test("what a tool prints cannot command the terminal", async () => {
  const { code, stdout, stderr } = await cadre("tools", "call", "calculator", "{}");
  expect({ code, stdout }).toEqual({ code: 0, stdout: "42\n" });
  expect(stderr).not.toContain("\u001b");
});

test("events of a session are JSON, one a line, up to the newest", async () => {
  await cadre("chat", "--message", "echo x");
  const { child, ended, stdout } = start(["sessions", "events", fakeSessionId, "--follow"], {
    CADRE_URL: server.url,
    CADRE_API_KEY: fakeKey,
  });
  await expect.poll(stdout).toContain('"seq":"4"');
  child.kill("SIGINT");
  const { code, stdout: all } = await ended;
  const events = all
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  expect(code).toBe(0);
  expect(events.map(({ seq }) => Number(seq))).toEqual(events.map((_, index) => index + 1));
});

test("doctor shows one screen, no secret, and exits 0 when all is well", async () => {
  const { code, stdout } = await cadre("doctor");
  expect(stdout).toContain("accepted: owner of Acme");
  expect(stdout).toContain("Node.js 24");
  expect(stdout).not.toContain(fakeKey);
  expect(stdout.split("\n").length).toBeLessThan(40);
  expect(code).toBe(0);
});

test("doctor says what is wrong, and exits with the first trouble", async () => {
  const unreachable = await cadre("doctor", "--json", "--url", "http://127.0.0.1:9");
  expect(unreachable.code).toBe(69);
  expect(JSON.parse(unreachable.stdout)).toMatchObject({ ok: false });
  const environment = { CADRE_URL: server.url, CADRE_API_KEY: fakeKey, CADRE_PORT: "eighty", CADRE_PROT: "1" };
  const wrong = await start(["doctor"], environment).ended;
  expect(wrong.code).toBe(78);
  expect(wrong.stdout).toContain("CADRE_PORT");
  expect(wrong.stdout).toContain("CADRE_PROT");
});
