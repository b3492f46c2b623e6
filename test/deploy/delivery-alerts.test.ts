import { spawnSync } from "node:child_process";
import { globSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";

const directory = join(import.meta.dirname, "../../deploy/prometheus");
const rules = readFileSync(join(directory, "delivery-alerts.yaml"), "utf8");
const hasPromtool = spawnSync("promtool", ["--version"]).status === 0;
const without = hasPromtool ? "" : " (not run: there is no promtool on this machine; Debian's package is `prometheus`)";

function promtool(...args: readonly string[]) {
  const { status, stdout, stderr } = spawnSync("promtool", args, { cwd: directory, encoding: "utf8" });
  return { status, output: stdout + stderr };
}

test("each metric that an alert names is one that a service has", () => {
  const made = /create(Counter|\w*Gauge|Histogram|\w*UpDownCounter)\(\s*"([^"]+)"/g;
  const names = new Set<string>();
  for (const file of globSync("services/**/*.ts", { exclude: ["**/*.test.ts"] })) {
    for (const [, kind, name = ""] of readFileSync(file, "utf8").matchAll(made)) {
      const snake = name.replaceAll(".", "_");
      names.add(kind === "Counter" && !snake.endsWith("_total") ? `${snake}_total` : snake);
    }
  }
  const named = new Set([...rules.matchAll(/\bcadre_[a-z_]+/g)].map(([name]) => name));
  expect(named.size).toBeGreaterThanOrEqual(7);
  expect([...named].filter((name) => !names.has(name))).toEqual([]);
});

test("each alert leads to the part of the guide that says what to do, which names it", () => {
  const guide = readFileSync(join(directory, "../../docs/guides/kafka.md"), "utf8");
  const part = /## When delivery fails or stalls\n[^]*?\n## /.exec(guide)?.[0] ?? "";
  const alerts = [...rules.matchAll(/- alert: (\w+)/g)].map(([, name]) => name);
  expect(alerts).toHaveLength(8);
  for (const alert of alerts) expect(part).toContain(`\`${alert}\``);
  expect(rules.match(/runbook: docs\/guides\/kafka\.md#when-delivery-fails-or-stalls$/gm)).toHaveLength(alerts.length);
});

test.skipIf(!hasPromtool)(`Prometheus takes the rules, and they fire when they should and not else${without}`, () => {
  expect(promtool("check", "rules", "delivery-alerts.yaml")).toMatchObject({ status: 0 });
  expect(promtool("test", "rules", "delivery-alerts.test.yaml")).toMatchObject({ status: 0 });
});
