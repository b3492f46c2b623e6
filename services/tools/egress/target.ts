import { defaultPort, type Target } from "./allow-list.ts";

/** Why a URL is none that a tool may use. */
export type TargetRefusal = "malformed" | "protocol" | "userinfo";

export type ParsedTarget =
  | { readonly type: "target"; readonly target: Target; readonly url: URL }
  | { readonly type: "refused"; readonly refusal: TargetRefusal };

/**
 * Reads a URL that a model wrote. Parsers disagree about odd URLs, and each
 * disagreement is a way around a check, so everything odd is refused: control
 * characters, blanks, backslashes, non-ASCII hosts (a name is written in its
 * `xn--` form), user information, other schemes than http and https.
 */
export function parseTarget(text: string): ParsedTarget {
  const refused = (refusal: TargetRefusal): ParsedTarget => ({ type: "refused", refusal });
  if (text.length > 4_096 || !/^[\x21-\x7e]+$/.test(text) || text.includes("\\")) return refused("malformed");
  const scheme = /^([a-z][a-z0-9+.-]*):/i.exec(text)?.[1]?.toLowerCase();
  if (scheme === undefined) return refused("malformed");
  if (scheme !== "http" && scheme !== "https") return refused("protocol");
  const authority = /^[a-z]+:\/\/([^/?#]+)(?:[/?#]|$)/i.exec(text)?.[1];
  if (authority === undefined) return refused("malformed");
  if (authority.includes("@")) return refused("userinfo");
  // `https://allowed.example#@internal/`: whoever splits at the wrong place connects elsewhere.
  if (/#.*@/.test(text)) return refused("userinfo");
  if (/%/.test(authority) || !URL.canParse(text)) return refused("malformed");
  const url = new URL(text);
  const host = url.hostname.replace(/^\[(.*)\]$/, "$1").replace(/\.$/, "");
  if (host === "" || host.endsWith(".")) return refused("malformed");
  const port = url.port === "" ? defaultPort(scheme) : Number(url.port);
  if (port < 1) return refused("malformed");
  url.hash = "";
  return { type: "target", target: { protocol: scheme, host, port }, url };
}
