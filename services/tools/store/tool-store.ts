import type { Definition } from "../domain/definition.ts";
import type { RegistrationLimits } from "../domain/limit.ts";

/** A tool that an org registered, as it is now. Ids are UUIDs. */
export interface StoredTool {
  readonly toolId: string;
  readonly name: string;
  readonly digest: string;
  readonly definition: Definition;
  /** Workers that take calls of this very definition. */
  readonly workers: number;
  readonly createdAt: Date;
  readonly updatedAt: Date;
}

/** A definition and its digest. */
export interface DigestedDefinition {
  readonly definition: Definition;
  readonly digest: string;
}

/** The tools of orgs and all definitions that they had. Every method works on one org's, and sees no other's. */
export interface ToolStore {
  /**
   * Makes a definition the one in force, and the tool if there is none of that
   * name, in one transaction. The same definition again changes nothing.
   *
   * @throws AppError LIMIT_EXCEEDED
   */
  register(orgId: string, definition: DigestedDefinition, limits: RegistrationLimits): Promise<StoredTool>;
  /** Tools in the order of their names, after a name. */
  list(orgId: string, afterName: string, limit: number): Promise<readonly StoredTool[]>;
  /** A tool by its id; `undefined` if the org has none. */
  get(orgId: string, toolId: string): Promise<StoredTool | undefined>;
  /** Tools by their names, or all, at most `limit`, in the order of their names. */
  find(orgId: string, names: readonly string[] | "all", limit: number): Promise<readonly StoredTool[]>;
  /** A definition that a tool has or had; `undefined` if it never had. */
  definition(orgId: string, toolId: string, digest: string): Promise<Definition | undefined>;
}
