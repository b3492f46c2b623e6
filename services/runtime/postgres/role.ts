/** What a role of a service is for: owning its schema, serving an org's requests, working for all orgs. */
export type RoleKind = "owner" | "app" | "engine";

/** The name of a service's role, for example `cadre_tools_app`. Throws TypeError for a service with an odd name. */
export function roleOf(service: string, kind: RoleKind): string {
  return `cadre_${assertService(service)}_${kind}`;
}

/** Service names become identifiers in SQL: lower-case letters, digits and underscores. */
export function assertService(service: string): string {
  if (!/^[a-z][a-z0-9_]{0,31}$/.test(service)) throw new TypeError(`not a service's name: ${JSON.stringify(service)}`);
  return service;
}
