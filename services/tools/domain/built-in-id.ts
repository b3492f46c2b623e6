import { createHash } from "node:crypto";

/**
 * The UUID of a built-in tool in an org, the same on every replica and in every
 * release, so that it needs no row: version 8 (RFC 9562) over the SHA-256 of
 * both.
 */
export function builtInToolUuid(orgUuid: string, name: string): string {
  const bytes = createHash("sha256").update(`cadre built-in tool ${orgUuid} ${name}`).digest().subarray(0, 16);
  bytes[6] = 0x80 | ((bytes[6] ?? 0) & 0x0f);
  bytes[8] = 0x80 | ((bytes[8] ?? 0) & 0x3f);
  const hex = bytes.toString("hex");
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}
