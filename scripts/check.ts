import { runSteps, type Step } from "./steps.ts";

/** What `npm run check` checks, and CI with it. */
export const checks: readonly Step[] = [
  { title: "format", command: ["biome", "format", "."] },
  { title: "lint and import borders", command: ["oxlint", "--type-aware", "--deny-warnings"] },
  { title: "types", command: ["tsc", "-p", "."] },
  { title: "contracts: buf lint", command: ["buf", "lint"] },
  { title: "contracts: buf format", command: ["buf", "format", "--diff", "--exit-code", "proto"] },
  { title: "contracts: our own rules", command: ["node", "scripts/contract-lint.ts"] },
  { title: "contracts: nothing broken against main", command: ["node", "scripts/contract-breaking.ts"] },
  { title: "generated code is current", command: ["node", "scripts/generated-diff.ts"] },
  { title: "nothing unused (knip)", command: ["knip"] },
];

if (import.meta.main) {
  const { failed } = await runSteps(checks);
  process.exitCode = failed.length === 0 ? 0 : 1;
}
