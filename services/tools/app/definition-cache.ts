import { type CompiledJsonSchema, compileJsonSchema } from "../../runtime/json-schema/json-schema.ts";
import type { Definition } from "../domain/definition.ts";
import type { ToolStore } from "../store/tool-store.ts";

/** A definition, ready to check arguments and results. */
export interface CheckedDefinition {
  readonly definition: Definition;
  readonly input: CompiledJsonSchema;
  /** Absent: any result. */
  readonly output: CompiledJsonSchema | undefined;
}

const maxDefinitions = 2_000;

/** Definitions by digest. One never changes, so what was read once stays true. */
export class DefinitionCache {
  readonly #tools: Pick<ToolStore, "definition">;
  readonly #known = new Map<string, CheckedDefinition>();

  constructor(tools: Pick<ToolStore, "definition">) {
    this.#tools = tools;
  }

  /** A definition that a tool of the org has or had; `undefined` if it never had. */
  async get(orgId: string, toolId: string, digest: string): Promise<CheckedDefinition | undefined> {
    // The org is part of the key: the row-level security of the read must not be skipped by another org's read.
    const key = `${orgId} ${toolId} ${digest}`;
    const known = this.#known.get(key);
    if (known !== undefined) return known;
    const definition = await this.#tools.definition(orgId, toolId, digest);
    if (definition === undefined) return undefined;
    const checked: CheckedDefinition = {
      definition,
      input: compileJsonSchema(definition.inputSchema),
      output: definition.outputSchema === undefined ? undefined : compileJsonSchema(definition.outputSchema),
    };
    if (this.#known.size >= maxDefinitions) this.#known.clear();
    this.#known.set(key, checked);
    return checked;
  }
}
