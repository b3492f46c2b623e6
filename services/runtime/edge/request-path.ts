/** A request's target, taken apart. */
export interface RequestPath {
  /** As it came. */
  readonly path: string;
  /** Decoded, without the leading empty one; none for `/`. */
  readonly segments: readonly string[];
  readonly query: URLSearchParams;
}

/**
 * Takes a request's target apart, if its path is spelt in the one way that is
 * served: nothing that two readers could fold differently. Refused are empty,
 * `.` and `..` segments, a slash at the end, path parameters (`;a=b`),
 * backslashes, what need not be percent-encoded and is, encoded slashes, and
 * the absolute form.
 *
 * @returns `undefined` for any other spelling: answer 404
 */
export function parsePath(target: string): RequestPath | undefined {
  const path = pathOf(target);
  if (!path.startsWith("/")) return undefined;
  const segments: string[] = [];
  for (const segment of path === "/" ? [] : path.slice(1).split("/")) {
    const decoded = decodeSegment(segment);
    if (decoded === undefined) return undefined;
    segments.push(decoded);
  }
  return { path, segments, query: new URLSearchParams(target.slice(path.length)) };
}

/** The path of a target as it came: nothing is decoded, folded or trimmed. */
export function pathOf(target: string): string {
  const query = target.indexOf("?");
  return query === -1 ? target : target.slice(0, query);
}

/** Characters that `encodeURIComponent` encodes and that paths may hold as they are (RFC 3986 §3.3), but for `;`. */
const alsoPlain = /%(?:3A|40|24|26|2B|2C|3D)/g;

function decodeSegment(segment: string): string | undefined {
  if (segment === "" || segment === "." || segment === "..") return undefined;
  let decoded: string;
  try {
    decoded = decodeURIComponent(segment);
  } catch {
    return undefined; // not a percent-encoding, or not UTF-8
  }
  if (/[/\\\u0000-\u001f\u007f]/.test(decoded)) return undefined;
  const canonical = encodeURIComponent(decoded).replace(alsoPlain, (code) => decodeURIComponent(code));
  return canonical === segment ? decoded : undefined;
}
