/**
 * Whether what a credential carries covers a scope. `*` covers everything,
 * `sessions.*` every scope of that family, and itself.
 */
export function coversScope(granted: readonly string[], scope: string): boolean {
  for (const one of granted) {
    if (one === scope || one === "*") return true;
    if (one.endsWith(".*") && scope.startsWith(one.slice(0, -1))) return true;
  }
  return false;
}

/**
 * Whether a worker with these grants may serve a tool. A key names its tools;
 * `*`, as a tool or as a scope, is all of them.
 */
export function coversTool(
  granted: { readonly scopes: readonly string[]; readonly tools: readonly string[] },
  tool: string,
): boolean {
  return granted.tools.includes(tool) || granted.tools.includes("*") || granted.scopes.includes("*");
}
