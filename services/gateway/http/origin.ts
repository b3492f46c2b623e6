/**
 * Whether a text is an origin as browsers send it: scheme, host and port, in
 * lower case, nothing after. `null`, `*` and patterns are none.
 */
export function isOrigin(text: string): boolean {
  return URL.canParse(text) && /^https?:/.test(text) && new URL(text).origin === text;
}
