import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, expect, test } from "vitest";

const tree = mkdtempSync(join(tmpdir(), "cadre-border-"));
cpSync(".oxlintrc.json", join(tree, ".oxlintrc.json"));
afterAll(() => rmSync(tree, { recursive: true, force: true }));

function lint(file: string, specifier: string): string {
  const path = join(tree, file);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, `export * from "${specifier}";\n`);
  const result = spawnSync(join(process.cwd(), "node_modules/.bin/oxlint"), [file], { cwd: tree, encoding: "utf8" });
  rmSync(path);
  return result.stdout;
}

test.each([
  ["services/orchestrator/main.ts", "../tools/main.ts"],
  ["services/orchestrator/app/send-turn.ts", "../../tools/store/call-store.ts"],
  ["services/tools/main.ts", "@cadre/sdk"],
  ["services/runtime/mesh/transport.ts", "../../tools/main.ts"],
  ["services/tools/domain/call.ts", "../store/call-store.ts"],
  ["services/tools/domain/call.ts", "kysely"],
  ["services/orchestrator/domain/graph/plan.ts", "../../store/graph-codec.ts"],
  ["services/orchestrator/domain/graph/plan.ts", "@cadre/gen/cadre/orchestrator/v1/graph_pb"],
  ["sdk/src/session.ts", "../../services/runtime/errors/failure.ts"],
  ["sdk/src/session.ts", "node:fs"],
  ["cli/chat.ts", "../services/orchestrator/app/send-turn.ts"],
])("%s may not import %s", (file, specifier) => {
  expect(lint(file, specifier)).toContain("no-restricted-imports");
});

test.each([
  ["services/orchestrator/main.ts", "../runtime/errors/failure.ts"],
  ["services/orchestrator/app/send-turn.ts", "../domain/run.ts"],
  ["services/tools/rpc/handlers.ts", "@cadre/gen/cadre/tools/v1/tool_pb"],
  ["cli/dev/dev.ts", "../../services/tools/main.ts"],
  ["sdk/src/session.ts", "@cadre/gen/cadre/tools/v1/tool_pb"],
  ["services/tools/tools.test.ts", "../../test/support/postgres.ts"],
])("%s may import %s", (file, specifier) => {
  expect(lint(file, specifier)).not.toContain("no-restricted-imports");
});
