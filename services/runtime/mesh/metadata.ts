import { Metadata, type MetadataValue } from "@grpc/grpc-js";
import { AppError } from "../errors/app-error.ts";
import { CallHeader } from "../rpc/call-header.ts";
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
  if (headers instanceof CallHeader && headers.isEmpty) return metadata;
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

/**
 * The headers of gRPC metadata: every value, binary ones as base64 without
 * padding. The metadata is read when somebody asks, and must not change.
 */
export function fromMetadata(metadata: Metadata): CallHeader {
  return new CallHeader({
    get: (name) => (isReservedHeader(name) ? null : toHeaderValue(metadata.get(name))),
    entries: () =>
      Object.entries(metadata.toJSON()).flatMap(([name, values]): [string, string][] => {
        const value = isReservedHeader(name) ? null : toHeaderValue(values);
        return value === null ? [] : [[name, value]];
      }),
  });
}

function toHeaderValue(values: readonly MetadataValue[]): string | null {
  const [first] = values;
  if (first === undefined) return null;
  return values.length === 1 ? toText(first) : values.map(toText).join(", ");
}

function toText(value: MetadataValue): string {
  return typeof value === "string" ? value.trim() : value.toString("base64").replace(/=+$/, "");
}
