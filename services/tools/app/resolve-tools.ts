import type { Definition } from "../domain/definition.ts";
import type { ToolsDeps } from "./deps.ts";

/** A definition that a run holds on to. */
export interface Pin {
  /** A UUID. */
  readonly toolId: string;
  readonly digest: string;
  readonly definition: Definition;
  /** Whether its calls never print. */
  readonly isSilent: boolean;
}

/** Tools that an agent can have at most. */
const maxPins = 256;

/**
 * Finds the definitions in force behind names; `*` stands for every tool. By
 * name. Needs no database if only built-in tools are named.
 */
export async function resolveTools(
  deps: Pick<ToolsDeps, "tools" | "builtIns">,
  orgId: string,
  names: readonly string[],
): Promise<{ readonly pins: readonly Pin[]; readonly missing: readonly string[] }> {
  const isAll = names.includes("*");
  const wanted = new Set(names.filter((name) => name !== "*"));
  const builtIns = deps.builtIns.list(orgId).filter(({ tool }) => isAll || wanted.has(tool.definition.name));
  const others = [...wanted].filter((name) => !deps.builtIns.has(name));
  const registered =
    isAll || others.length > 0 ? await deps.tools.find(orgId, isAll ? "all" : others, maxPins - builtIns.length) : [];
  const pins = [
    ...builtIns.map(({ toolId, digest, tool }) => ({ toolId, digest, definition: tool.definition, isSilent: true })),
    ...registered.map(({ toolId, digest, definition }) => ({ toolId, digest, definition, isSilent: false })),
  ].sort((a, b) => (a.definition.name < b.definition.name ? -1 : 1));
  const found = new Set(pins.map(({ definition }) => definition.name));
  return { pins, missing: [...wanted].filter((name) => !found.has(name)) };
}
