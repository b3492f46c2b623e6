import { execFile } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { promisify } from "node:util";
import { TurnState } from "@cadre/gen/cadre/orchestrator/v1/session_event_pb";
import { SessionService } from "@cadre/gen/cadre/orchestrator/v1/session_pb";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { build } from "vite";
import { afterAll, beforeAll, expect, test } from "vitest";
import { checkPackages, packSdk } from "../../scripts/pack-sdk.ts";
import { createFakeSessionService } from "../support/fake-session-service.ts";

const run = promisify(execFile);
const root = join(import.meta.dirname, "../..");
// A path with a space, as some people have.
const project = mkdtempSync(join(tmpdir(), "cadre sdk "));

beforeAll(async () => {
  const tarballs = join(project, "tarballs");
  const { gen, sdk } = packSdk(tarballs);
  checkPackages([gen, sdk]);
  // Everything that the SDK depends on is packed from what is installed here, so
  // that the installation needs no network.
  const names = [
    ...closure(["@connectrpc/connect", "@connectrpc/connect-web", "@bufbuild/protobuf", "@bufbuild/protovalidate"]),
  ];
  const paths = names.map((name) => join(root, "node_modules", name));
  await run("npm", ["pack", "--silent", "--ignore-scripts", "--pack-destination", tarballs, ...paths]);
  const dependencies = Object.fromEntries(
    [
      ["@cadre/gen", basename(gen)],
      ["@cadre/sdk", basename(sdk)],
      ...names.map((name) => [name, tarballOf(name)] as const),
    ].map(([name, file]) => [name, `file:tarballs/${file}`]),
  );
  write("package.json", JSON.stringify({ name: "app", private: true, type: "module", dependencies }));
  await run("npm", ["install", "--offline", "--ignore-scripts", "--no-audit", "--no-fund"], { cwd: project });
}, 180_000);

afterAll(() => rmSync(project, { recursive: true, force: true }));

test("the installed package holds what it declares, and one copy of the Protobuf runtime", () => {
  const installed = join(project, "node_modules/@cadre/sdk");
  expect(readdirSync(installed).sort()).toEqual(expect.arrayContaining(["lib", "package.json"]));
  const manifest = JSON.parse(readFileSync(join(installed, "package.json"), "utf8"));
  expect(manifest.scripts).toBeUndefined();
  expect(manifest.dependencies["@cadre/gen"]).toBe(manifest.version);
  const all = readdirSync(project, { recursive: true, encoding: "utf8" });
  expect(all.filter((path) => path.endsWith("node_modules/@bufbuild/protobuf"))).toHaveLength(1);
});

test("no public type is any", () => {
  const lib = join(project, "node_modules/@cadre/sdk/lib");
  for (const name of readdirSync(lib).filter((file) => file.endsWith(".d.ts"))) {
    const code = readFileSync(join(lib, name), "utf8").replaceAll(/\/\*[\s\S]*?\*\/|\/\/.*/g, "");
    expect(code.match(/\bany\b/), name).toBeNull();
    expect(code.match(/\.ts"/), name).toBeNull();
  }
});

test("it runs in Node: a turn streams", async () => {
  const service = createFakeSessionService();
  service.onSend = () =>
    service.append(
      { case: "textDelta", value: { stepId: "s", attempt: 1, text: "4" } },
      { case: "textDelta", value: { stepId: "s", attempt: 1, text: "2" } },
      { case: "turnEnded", value: { state: TurnState.SUCCEEDED, answer: "42" } },
    );
  const server = createServer(
    connectNodeAdapter({ routes: (router) => router.service(SessionService, service.handlers) }),
  );
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    write(
      "main.js",
      `import { collectText, createCadre } from "@cadre/sdk";
       const cadre = createCadre({ baseUrl: process.argv[2] });
       const session = await cadre.sessions.create();
       console.log(await collectText(session.stream("6 times 7?")));`,
    );
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const { stdout } = await run(process.execPath, ["main.js", url], { cwd: project });
    expect(stdout).toBe("42\n");
  } finally {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
});

test("its types hold for a strict compiler that checks declarations, too", async () => {
  write(
    "main.ts",
    `import { createCadre, type CadreErrorReason, type SessionEvent } from "@cadre/sdk";
     const cadre = createCadre({ baseUrl: "http://127.0.0.1:8010", apiKey: async () => "key" });
     export async function texts(id: string): Promise<string[]> {
       const result: string[] = [];
       for await (const event of cadre.sessions.stream(id, "hi", { onBusy: "enqueue" })) {
         const typed: SessionEvent = event;
         if (typed.body.case === "textDelta") result.push(typed.body.value.text);
       }
       return result;
     }
     // @ts-expect-error not a reason of the contract
     export const wrong: CadreErrorReason = "NOT_A_REASON";`,
  );
  const compilerOptions = {
    target: "es2024",
    lib: ["es2024", "esnext.disposable", "dom", "dom.iterable"],
    module: "nodenext",
    strict: true,
    exactOptionalPropertyTypes: true,
    noEmit: true,
    types: [],
  };
  write("tsconfig.json", JSON.stringify({ compilerOptions, files: ["main.ts"] }));
  await run(join(root, "node_modules/.bin/tsc"), ["-p", project]);
});

test("it is bundled for a browser without a module of Node", async () => {
  mkdirSync(join(project, "web"));
  write(
    "web/index.html",
    `<script type="module">
       import { createCadre, defineTool } from "@cadre/sdk";
       globalThis.cadre = createCadre({ baseUrl: location.origin });
       globalThis.defineTool = defineTool;
     </script>`,
  );
  const output = await build({
    root: join(project, "web"),
    logLevel: "error",
    build: { write: false, target: "es2022" },
  });
  if (!("output" in output)) throw new TypeError("vite watches");
  const chunks = output.output.filter((file) => file.type === "chunk");
  const modules = chunks.flatMap((chunk) => Object.keys(chunk.modules));
  expect(modules.some((id) => id.includes("@cadre/sdk/lib/create-cadre.js"))).toBe(true);
  expect(modules.filter((id) => id.includes("__vite-browser-external") || id.startsWith("node:"))).toEqual([]);
  expect(chunks.flatMap((chunk) => [...chunk.imports, ...chunk.dynamicImports])).toEqual([]);
  const bytes = chunks.reduce((sum, chunk) => sum + chunk.code.length, 0);
  expect(bytes).toBeLessThan(400_000);
}, 60_000);

function write(path: string, text: string): void {
  writeFileSync(join(project, path), text);
}

/** The packages that some packages need, themselves included. */
function closure(names: readonly string[], found = new Set<string>()): Set<string> {
  for (const name of names) {
    if (found.has(name)) continue;
    found.add(name);
    const manifest = JSON.parse(readFileSync(join(root, "node_modules", name, "package.json"), "utf8"));
    closure(Object.keys(manifest.dependencies ?? {}), found);
  }
  return found;
}

function tarballOf(name: string): string {
  const manifest = JSON.parse(readFileSync(join(root, "node_modules", name, "package.json"), "utf8"));
  return `${name.replace("@", "").replace("/", "-")}-${manifest.version}.tgz`;
}
