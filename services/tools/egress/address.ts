import ipaddr from "ipaddr.js";

/**
 * What an address is to the egress rules. Only `public` may be connected to;
 * the others name why not, without the address.
 */
export type AddressClass =
  | "public"
  /** Cloud metadata services: credentials for whoever can ask. Never reachable, whatever the operator allows. */
  | "metadata"
  /** The machine itself. */
  | "loopback"
  /** The organisation's own networks, carrier NAT and IPv6 unique local addresses. */
  | "private"
  | "link_local"
  /** IPv6 that carries an IPv4 address: mapped, compatible, NAT64, 6to4, Teredo. */
  | "embedded_ipv4"
  /** Everything else that is not for a host on the public internet. */
  | "reserved"
  /** Not an address. */
  | "malformed";

/** Metadata services outside of the link-local range: Alibaba, Azure, and AWS over IPv6. */
const metadataAddresses = new Set(["100.100.100.200", "168.63.129.16", "169.254.169.254", "fd00:ec2::254"]);

const classByRange: Readonly<Record<string, AddressClass>> = {
  unicast: "public",
  loopback: "loopback",
  unspecified: "loopback",
  private: "private",
  carrierGradeNat: "private",
  uniqueLocal: "private",
  deprecatedSiteLocal: "private",
  linkLocal: "link_local",
  ipv4Mapped: "embedded_ipv4",
  rfc6145: "embedded_ipv4",
  rfc6052: "embedded_ipv4",
  "6to4": "embedded_ipv4",
  teredo: "embedded_ipv4",
};

/** Global unicast, the only part of IPv6 that the internet routes to hosts (RFC 4291, IANA). */
const globalUnicast = ipaddr.parseCIDR("2000::/3");

/**
 * Classifies an address as a resolver or a URL parser gives it. The list of
 * special ranges is ipaddr.js's, made from the IANA registries; what is not on
 * it must be global unicast as well.
 */
export function classifyAddress(text: string): AddressClass {
  // A zone id names an interface of this machine, so the address is local.
  if (text.includes("%")) return "link_local";
  if (!ipaddr.isValid(text) || (ipaddr.IPv4.isIPv4(text) && !ipaddr.IPv4.isValidFourPartDecimal(text))) {
    return "malformed";
  }
  const address = ipaddr.parse(text);
  if (metadataAddresses.has(address.toString())) return "metadata";
  const found = classByRange[address.range()] ?? "reserved";
  if (found !== "public" || address.kind() === "ipv4") return found;
  if (address.match(globalUnicast)) return "public";
  const isCompatible = address
    .toByteArray()
    .slice(0, 12)
    .every((byte) => byte === 0);
  return isCompatible ? "embedded_ipv4" : "reserved";
}
