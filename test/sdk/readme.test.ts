import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { fakeKey, startFakeCadre } from "../support/fake-cadre.ts";

const root = join(import.meta.dirname, "../..");

test("the README's snippets run, one after the other, as one program", async () => {
  const readme = readFileSync(join(root, "sdk/README.md"), "utf8");
  const snippets = [...readme.matchAll(/```ts\n([\s\S]*?)```/g)].map(([, code = ""]) => code);
  expect(snippets.length).toBeGreaterThan(4);
  const imports = snippets.flatMap((code) => code.match(/^import .*$/gm) ?? []);
  const program = [
    ...imports,
    // Snippets may use the same names.
    ...snippets.map((code) => code.replaceAll(/^import .*$/gm, "")),
  ].join("\n");
  const server = await startFakeCadre();
  // Within the repository, so that its packages are found.
  const directory = mkdtempSync(join(root, "sdk/dist-readme-"));
  try {
    const path = join(directory, "program.ts");
    writeFileSync(path, program.replace("http://127.0.0.1:8010", server.url));
    const { code, output } = await run(path);
    expect(output).toContain("turnEnded");
    expect(output).toContain("SESSION_NOT_FOUND");
    expect(code, output).toBe(0);
  } finally {
    rmSync(directory, { recursive: true });
    await server.stop();
  }
}, 60_000);

function run(path: string): Promise<{ readonly code: number | null; readonly output: string }> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [path], { env: { ...process.env, CADRE_API_KEY: fakeKey } });
    // A snippet that waits for ever must not keep the test's machine.
    const timer = setTimeout(() => child.kill("SIGKILL"), 50_000);
    let output = "";
    child.stdout.on("data", (chunk: Buffer) => (output += chunk));
    child.stderr.on("data", (chunk: Buffer) => (output += chunk));
    child.once("close", (code) => {
      clearTimeout(timer);
      resolve({ code, output });
    });
  });
}
