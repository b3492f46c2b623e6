import { type ChildProcess, execFile, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { chownSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { request } from "node:https";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { ensureDevCertificates } from "../../services/runtime/identity/dev-authority.ts";
import {
  launchAs,
  type OperatingSystemUser,
  postgresUser,
} from "../../services/runtime/postgres/operating-system-user.ts";
import { createTestDatabase, type TestDatabase } from "../support/postgres.ts";

// A start in production with all that it demands: a database of its own, TLS on
// a public address, mutual TLS in the mesh, keys in files, a user that is not
// root. The authority of the tests stands for a real one.

const root = join(import.meta.dirname, "../..");
const program = join(root, "cli/bin/cadre.js");
const services = ["credentials", "registry", "tools", "orchestrator", "events", "gateway"] as const;

let database: TestDatabase;
let directory: string;
let authority: string;
let user: OperatingSystemUser | undefined;
let settings: Record<string, string>;
let url: string;
let server: ChildProcess | undefined;

beforeAll(async () => {
  database = await createTestDatabase();
  directory = mkdtempSync(join(tmpdir(), "cadre production "));
  const mesh = join(directory, "mesh");
  await ensureDevCertificates({ directory: mesh, services });
  authority = join(mesh, "authority.pem");
  const key = (name: string): string => {
    const file = join(directory, name);
    writeFileSync(file, `${randomBytes(32).toString("hex")}\n`, { mode: 0o600 });
    return file;
  };
  const [port, ...meshPorts] = await freePorts(1 + services.length);
  url = `https://localhost:${port}`;
  settings = {
    CADRE_MODE: "production",
    CADRE_DATABASE_URL: database.url,
    CADRE_DATA: join(directory, "data"),
    CADRE_HOST: "0.0.0.0",
    CADRE_PORT: `${port}`,
    CADRE_ADMIN_PORT: "0",
    CADRE_AUTHORITIES: "localhost",
    CADRE_TLS_CERT_FILE: join(mesh, "gateway.pem"),
    CADRE_TLS_KEY_FILE: join(mesh, "gateway.key"),
    CADRE_MESH_CA_FILE: authority,
    CADRE_MESH_CERT_FILE: join(mesh, "{service}.pem"),
    CADRE_MESH_KEY_FILE: join(mesh, "{service}.key"),
    CADRE_CREDENTIALS_HMAC_KEY_FILE: key("hmac.key"),
    CADRE_PAGE_TOKEN_KEY_FILE: key("page.key"),
    ...Object.fromEntries(
      services.map((name, index) => [`CADRE_MESH_${name.toUpperCase()}`, `127.0.0.1:${meshPorts[index]}`]),
    ),
  };
  user = await postgresUser();
  if (user !== undefined) giveTo(user, directory);
}, 60_000);
afterAll(async () => {
  server?.kill("SIGKILL");
  await database?.drop();
  rmSync(directory, { recursive: true, force: true });
});

/** Root's test makes a server of somebody else's: all that it reads is given to that user. */
function giveTo({ uid, gid }: OperatingSystemUser, path: string): void {
  for (const entry of readdirSync(path, { recursive: true, encoding: "utf8" })) chownSync(join(path, entry), uid, gid);
  chownSync(path, uid, gid);
}

async function freePorts(count: number): Promise<readonly number[]> {
  const listeners = await Promise.all(
    Array.from({ length: count }, async () => {
      const listener = createServer();
      await new Promise<void>((resolve) => listener.listen(0, "127.0.0.1", resolve));
      return listener;
    }),
  );
  const ports = listeners.map((listener) => Reflect.get(listener.address() ?? {}, "port") as number);
  await Promise.all(listeners.map((listener) => new Promise((resolve) => listener.close(resolve))));
  return ports;
}

/** The environment of this process without any setting of Cadre's, and what Vitest loads into its children. */
function environment(more: Readonly<Record<string, string>>): NodeJS.ProcessEnv {
  const clean = Object.entries(process.env).filter(([name]) => !name.startsWith("CADRE_") && name !== "NODE_OPTIONS");
  return { ...Object.fromEntries(clean), HOME: directory, NO_COLOR: "1", ...more };
}

interface Serving {
  readonly child: ChildProcess;
  /** The line that says that it serves; `undefined` if it ended before. */
  readonly ready: Promise<string | undefined>;
  readonly ended: Promise<number | null>;
  /** All that it wrote, the log on standard output included. */
  printed(): string;
}

async function serve(more: Readonly<Record<string, string>> = {}, nodeFlags: readonly string[] = []): Promise<Serving> {
  const args = [...nodeFlags, program, "serve", ...services, "--json"];
  const launch = await launchAs(user, process.execPath, args, [program, process.execPath]);
  const child = spawn(launch.command, launch.args, {
    env: environment({ ...settings, ...more }),
    cwd: directory,
    stdio: ["ignore", "pipe", "pipe"],
    ...launch.user,
  });
  let printed = "";
  child.stderr.on("data", (chunk: Buffer) => (printed += chunk.toString()));
  const ended = new Promise<number | null>((resolve) => child.once("close", (code) => resolve(code)));
  // In production the log goes to standard output, too.
  const line = new Promise<string>((resolve) => {
    createInterface({ input: child.stdout }).on("line", (text) => {
      printed += `${text}\n`;
      if (text.startsWith('{"services":')) resolve(text);
    });
  });
  return { child, ready: Promise.race([line, ended.then(() => undefined)]), ended, printed: () => printed };
}

/** Runs the command line against the server; standard output. */
async function cadre(key: string, ...args: readonly string[]): Promise<string> {
  const { stdout } = await promisify(execFile)(process.execPath, [program, ...args], {
    cwd: directory,
    env: environment({ CADRE_URL: url, CADRE_API_KEY: key, NODE_EXTRA_CA_CERTS: authority }),
  });
  return stdout;
}

interface Answer {
  readonly status: number | undefined;
  readonly body: string;
}

/** What a path answers, without a credential unless one is given. */
function get(path: string, key?: string): Promise<Answer> {
  const headers = key === undefined ? {} : { authorization: `Bearer ${key}` };
  return new Promise((resolve, reject) => {
    const call = request(`${url}${path}`, { ca: readFileSync(authority), headers }, (response) => {
      let body = "";
      response.on("data", (chunk: Buffer) => (body += chunk.toString()));
      response.on("error", reject);
      response.on("end", () => resolve({ status: response.statusCode, body }));
    });
    call.on("error", reject);
    call.end();
  });
}

async function statusOf(path: string): Promise<number | undefined> {
  return (await get(path)).status;
}

/** What each service says of its contracts. */
async function contractDetails(key: string): Promise<Readonly<Record<string, string>>> {
  const { body } = await get("/v1/health", key);
  const { services: told } = JSON.parse(body) as {
    services: { service: string; dependencies?: { name: string; detail?: string }[] }[];
  };
  const details = told.flatMap(({ service, dependencies = [] }) =>
    dependencies.filter(({ name }) => name === "contracts").map(({ detail = "" }) => [service, detail] as const),
  );
  return Object.fromEntries(details);
}

test("serves over TLS, issues a key, answers a call with it, and ends with 0 when it is told to", async () => {
  const started = await serve();
  server = started.child;
  const ready = await started.ready;
  expect(ready, started.printed()).toBeDefined();
  expect(JSON.parse(ready ?? "{}")).toMatchObject({ services });
  expect(await statusOf("/health")).toBe(503);
  expect(await statusOf("/v1/agents")).toBe(401);

  const adminKey = readFileSync(join(directory, "data/admin.key"), "utf8").trim();
  const missing = expect.stringMatching(
    /^not registered: .*cadre\/options\/v1\/options\.proto.*; register them with `cadre contracts push --own`$/,
  );
  await expect
    .poll(() => contractDetails(adminKey), { timeout: 60_000, interval: 500 })
    .toEqual({ events: missing, gateway: missing, orchestrator: missing, tools: missing });
  await cadre(adminKey, "contracts", "push", "--own");
  await expect.poll(() => statusOf("/health"), { timeout: 60_000, interval: 500 }).toBe(200);

  const issued = await cadre(adminKey, "keys", "issue", "--name", "app", "--scope", "*", "--json");
  const { secret } = JSON.parse(issued) as { secret: string };
  expect(secret).toMatch(/^cdr_live_/);
  // On a machine that is overloaded the calculator takes longer to load than its first call may.
  await expect
    .poll(() => cadre(secret, "chat", "--message", "calculator: 6 * 7"), { timeout: 90_000 })
    .toBe("calculator says: 42\n");

  // Whoever does not know the authority is not talked to.
  await expect(fetch(`${url}/health`)).rejects.toThrow();
  await expect(fetch(url.replace("https", "http"))).rejects.toThrow();

  started.child.kill("SIGTERM");
  expect(await started.ended).toBe(0);
  expect(started.printed()).not.toContain(new URL(database.url).password);
  expect(started.printed()).not.toContain(secret);
}, 300_000);

test.each<[string, Record<string, string>, RegExp]>([
  ["code that NODE_OPTIONS loads", { NODE_OPTIONS: "--import=data:text/javascript," }, /NODE_OPTIONS loads code/],
  ["an open inspector", { NODE_OPTIONS: "--inspect=127.0.0.1:0" }, /the inspector is open/],
  ["a key that is an example", { CADRE_CREDENTIALS_HMAC_KEY_FILE: "example" }, /HMAC_KEY_FILE holds an example/],
  ["a key of 16 bytes", { CADRE_PAGE_TOKEN_KEY_FILE: "short" }, /PAGE_TOKEN_KEY_FILE holds a key of less than 32/],
])(
  "refuses %s: exit 78",
  async (_, more, line) => {
    const files = { example: "ab".repeat(32), short: randomBytes(16).toString("hex") };
    const named = Object.entries(more).map(([name, value]) => {
      const text = Reflect.get(files, value) as string | undefined;
      if (text === undefined) return [name, value];
      const file = join(directory, `${value}.key`);
      writeFileSync(file, text, { mode: 0o600 });
      if (user !== undefined) chownSync(file, user.uid, user.gid);
      return [name, file];
    });
    const started = await serve(Object.fromEntries(named));
    expect(await started.ended).toBe(78);
    expect(started.printed()).toMatch(line);
    expect(await started.ready).toBeUndefined();
  },
  60_000,
);

test("refuses a clock that is two minutes off the database's: exit 78", async () => {
  const ahead = "const { now } = Date; Date.now = () => now() + 120_000";
  const started = await serve({}, ["--import", `data:text/javascript,${encodeURIComponent(ahead)}`]);
  expect(await started.ended).toBe(78);
  expect(started.printed()).toMatch(/the clock of this machine is 1(19|20|21) s ahead of the database's/);
}, 60_000);

test.runIf(process.getuid?.() === 0)(
  "refuses to run as root: exit 78",
  async () => {
    const asRoot = user;
    user = undefined;
    const started = await serve();
    user = asRoot;
    expect(await started.ended).toBe(78);
    expect(started.printed()).toContain("runs as root: start as a user of its own");
  },
  60_000,
);
