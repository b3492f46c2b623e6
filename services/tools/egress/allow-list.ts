/** Where tools may connect to, as the operator said. */
export interface AllowList {
  /** Whether the rules name the target. Nothing is said about its addresses. */
  allows(target: Target): boolean;
}

/** Where a request goes. */
export interface Target {
  readonly protocol: "http" | "https";
  /** Lower case, ASCII, without a trailing dot; an IPv6 address without brackets. */
  readonly host: string;
  readonly port: number;
}

const rulePattern = /^(?:(https?):\/\/)?(\*\.)?([a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?$/;

interface Rule {
  readonly protocol: "http" | "https";
  readonly subdomains: boolean;
  readonly host: string;
  readonly port: number;
}

/**
 * Reads the rules of `CADRE_EGRESS_ALLOW`: `api.example.com` (https on 443),
 * `api.example.com:8443`, `*.example.com` (its subdomains at any depth, not
 * itself), `http://intranet.example.com` (plain http, on 80). No rules allow
 * nothing. Throws TypeError on one that is not of this form.
 */
export function parseAllowList(rules: readonly string[]): AllowList {
  const parsed = rules.map(parseRule);
  return {
    allows: (target) =>
      parsed.some(
        (rule) =>
          rule.protocol === target.protocol &&
          rule.port === target.port &&
          (rule.subdomains ? target.host.endsWith(`.${rule.host}`) : target.host === rule.host),
      ),
  };
}

function parseRule(text: string): Rule {
  const match = rulePattern.exec(text.toLowerCase());
  const [, protocol = "https", wildcard, host = "", port] = match ?? [];
  const number = port === undefined ? defaultPort(protocol) : Number(port);
  if (match === null || number < 1 || number > 65_535) {
    throw new TypeError(`${JSON.stringify(text.slice(0, 80))} is not host, host:port, *.host, or one after http://`);
  }
  return {
    protocol: protocol === "http" ? "http" : "https",
    subdomains: wildcard !== undefined,
    host: host.replace(/^\[(.*)\]$/, "$1"),
    port: number,
  };
}

/**
 * Reads `CADRE_EGRESS_ALLOW_PRIVATE`: exact `host:port`, for which an address
 * that is not public is taken. Throws TypeError on a rule without a port.
 */
export function parsePrivateList(rules: readonly string[]): ReadonlySet<string> {
  return new Set(
    rules.map((text) => {
      const match = /^([a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\]):([0-9]{1,5})$/.exec(text.toLowerCase());
      if (match === null) throw new TypeError(`${JSON.stringify(text.slice(0, 80))} is not host:port`);
      return hostAndPort((match[1] ?? "").replace(/^\[(.*)\]$/, "$1"), Number(match[2]));
    }),
  );
}

/** A target as `parsePrivateList` has it. */
export function hostAndPort(host: string, port: number): string {
  return `${host}:${port}`;
}

/** The port of a protocol when a URL names none. */
export function defaultPort(protocol: string): number {
  return protocol === "http" ? 80 : 443;
}
