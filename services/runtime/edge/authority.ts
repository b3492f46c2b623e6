import { isIP } from "node:net";

/** Which hosts a server answers for. */
export interface AuthorityRule {
  /** Whether a request's authority, `host` or `host:port`, names us. */
  admits(authority: string): boolean;
}

export interface AuthorityOptions {
  /** The address that the server listens on. */
  readonly host: string;
  /** Host names, without port, that are served, too; of IPv6 addresses with brackets. */
  readonly named: readonly string[];
}

/**
 * Decides which hosts are served, so that no page of a stranger can reach the
 * server by a name of its own that resolves to us (DNS rebinding). The port says
 * nothing of that, and is another one behind a forward or a development server:
 *
 * - on a loopback address: loopback names and addresses, and what is named;
 * - on any other: what is named; if nothing is, addresses, which nobody can rebind, and loopback names.
 */
export function createAuthorityRule({ host, named }: AuthorityOptions): AuthorityRule {
  const names = new Set(named.map((name) => name.toLowerCase()));
  const isPrivate = isLoopbackHost(host);
  return {
    admits(authority) {
      const [, name = ""] = /^(.*?)(?::\d+)?$/.exec(authority.toLowerCase()) ?? [];
      if (names.has(name)) return true;
      if (isPrivate) return isLoopbackHost(name);
      return names.size === 0 && (isLoopbackHost(name) || isIP(bare(name)) !== 0);
    },
  };
}

/** Whether a host is this machine, whoever resolves it: 127.0.0.0/8, ::1, `localhost` and what ends with it (RFC 6761 §6.3). */
export function isLoopbackHost(host: string): boolean {
  const name = bare(host).toLowerCase();
  if (isIP(name) === 4) return name.startsWith("127.");
  return name === "::1" || name === "localhost" || /^(?:[a-z0-9_-]+\.)+localhost$/.test(name);
}

function bare(host: string): string {
  return host.replace(/^\[|\]$/g, "");
}
