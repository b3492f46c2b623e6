import { type CompiledJsonSchema, compileJsonSchema } from "../../runtime/json-schema/json-schema.ts";
import type { BuiltInTool } from "../builtin/built-in-tool.ts";
import { builtInToolUuid } from "../domain/built-in-id.ts";
import { digestOf } from "../domain/definition.ts";

/** A built-in tool as an org has it. */
export interface OrgBuiltIn {
  /** A UUID. */
  readonly toolId: string;
  readonly tool: BuiltInTool;
  readonly digest: string;
  readonly input: CompiledJsonSchema;
}

/** Orgs whose ids are remembered; those of others are computed again. */
const maxOrgs = 1_000;

/** The built-in tools, which every org has under ids of its own. */
export class BuiltInCatalog {
  readonly #tools: readonly Omit<OrgBuiltIn, "toolId">[];
  readonly #names: ReadonlySet<string>;
  readonly #byOrg = new Map<string, ReadonlyMap<string, OrgBuiltIn>>();

  constructor(tools: readonly BuiltInTool[]) {
    this.#tools = [...tools]
      .sort((a, b) => (a.definition.name < b.definition.name ? -1 : 1))
      .map((tool) => ({
        tool,
        digest: digestOf(tool.definition),
        input: compileJsonSchema(tool.definition.inputSchema),
      }));
    this.#names = new Set(tools.map(({ definition }) => definition.name));
  }

  /** Whether a name is taken in every org. */
  has(name: string): boolean {
    return this.#names.has(name);
  }

  /** An org's built-in tools, by name. */
  list(orgId: string): readonly OrgBuiltIn[] {
    return [...this.#ofOrg(orgId).values()];
  }

  /** A built-in tool by the id that it has in an org. */
  get(orgId: string, toolId: string): OrgBuiltIn | undefined {
    return this.#ofOrg(orgId).get(toolId);
  }

  #ofOrg(orgId: string): ReadonlyMap<string, OrgBuiltIn> {
    const known = this.#byOrg.get(orgId);
    if (known !== undefined) return known;
    const tools = new Map(
      this.#tools.map((entry) => {
        const toolId = builtInToolUuid(orgId, entry.tool.definition.name);
        return [toolId, { ...entry, toolId }];
      }),
    );
    if (this.#byOrg.size >= maxOrgs) this.#byOrg.clear();
    this.#byOrg.set(orgId, tools);
    return tools;
  }
}
