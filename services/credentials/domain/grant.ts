import { AppError } from "../../runtime/errors/app-error.ts";
import { coversScope, coversTool } from "../../runtime/identity/scope.ts";

/** What a credential may be used for. */
export interface Grant {
  /** `cadre.credentials.v1.Role`; each includes the lower ones. */
  readonly role: number;
  readonly scopes: readonly string[];
  readonly tools: readonly string[];
}

/** A service token carries scopes and tools in a header, so together they are bounded. */
const maxGrantBytes = 2_048;

/**
 * Nobody hands on more than they have.
 *
 * @throws AppError GRANT_TOO_WIDE naming the first thing that the issuer lacks
 */
export function assertGrantable(issuer: Grant, wanted: Grant): void {
  if (wanted.role > issuer.role) throw tooWide("the role", "role");
  const scope = wanted.scopes.find((one) => !coversScope(issuer.scopes, one));
  if (scope !== undefined) throw tooWide(`the scope ${scope}`, "scope");
  const tool = wanted.tools.find((one) => !coversTool(issuer, one));
  if (tool !== undefined) throw tooWide(`the tool ${tool}`, "tool");
}

/** @throws AppError INVALID_ARGUMENT if scopes and tools together are longer than 2 KiB */
export function assertGrantSize({ scopes, tools }: Grant): void {
  const bytes = [...scopes, ...tools].reduce((sum, text) => sum + text.length + 2, 0);
  if (bytes <= maxGrantBytes) return;
  const message = `scopes and tools together have at most ${maxGrantBytes} characters`;
  throw new AppError("INVALID_ARGUMENT", message, { violations: [{ field: "scopes", message }] });
}

function tooWide(what: string, field: string): AppError {
  return new AppError("GRANT_TOO_WIDE", `${what} is more than your credential carries`, { metadata: { field } });
}
