/**
 * Whether a text is an origin as browsers send it: scheme, host and port, in
 * lower case, nothing after. `null`, `*` and patterns are none.
 */
export function isOrigin(text: string): boolean {
  return /^https?:[^*]*$/.test(text) && URL.canParse(text) && new URL(text).origin === text;
}
