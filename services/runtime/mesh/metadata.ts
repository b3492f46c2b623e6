import { Metadata } from "@grpc/grpc-js";
import { AppError } from "../errors/app-error.ts";
import { isReservedHeader } from "../rpc/reserved-header.ts";

/**
 * Turns headers into gRPC metadata. A name that ends in `-bin` holds base64,
 * several values separated by commas; each becomes a value of its own. Other
 * values stay one text, which in gRPC means the same as its parts.
 *
 * @throws AppError INVALID_METADATA for a value that gRPC cannot carry
 */
export function toMetadata(headers: Headers): Metadata {
  const metadata = new Metadata();
  for (const [name, value] of headers) {
    if (isReservedHeader(name)) continue;
    if (name.endsWith("-bin")) {
      for (const part of value.split(",")) metadata.add(name, Buffer.from(part.trim(), "base64"));
      continue;
    }
    try {
      metadata.add(name, value);
    } catch (cause) {
      throw new AppError("INVALID_METADATA", `${name}: must be printable ASCII`, { cause });
    }
  }
  return metadata;
}

/** Turns gRPC metadata into headers: every value, binary ones as base64 without padding. */
export function fromMetadata(metadata: Metadata): Headers {
  const headers = new Headers();
  for (const [name, values] of Object.entries(metadata.toJSON())) {
    if (isReservedHeader(name)) continue;
    for (const value of values) {
      headers.append(name, typeof value === "string" ? value : value.toString("base64").replace(/=+$/, ""));
    }
  }
  return headers;
}
