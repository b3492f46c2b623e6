import { promisify } from "node:util";
import * as zlib from "node:zlib";
import type { Compression } from "@connectrpc/connect/protocol";
import { AppError } from "../errors/app-error.ts";
import { tooLarge } from "./message-size.ts";

const gunzip = promisify(zlib.gunzip);
const brotliDecompress = promisify(zlib.brotliDecompress);
const gzip = promisify<zlib.InputType, zlib.ZlibOptions, Buffer>(zlib.gzip);
const brotliCompress = promisify<zlib.InputType, zlib.BrotliOptions, Buffer>(zlib.brotliCompress);

/** Up to here any ratio is allowed: it costs nothing, and small texts repeat. */
const freeBytes = 64 * 1024;
/** JSON of machines compresses 10 to 30 times. A bomb does so 1,000 times. */
const maxRatio = 100;

/** Request encodings that are understood, in the order of `Accept-Encoding` answers. */
export const encodings = ["gzip", "br"] as const;
export type Encoding = (typeof encodings)[number];

/** Whether a text names an encoding that is understood. */
export function isEncoding(text: string): text is Encoding {
  return (encodings as readonly string[]).includes(text);
}

/**
 * Inflates a message. The output never grows past `maxBytes`, nor past 100
 * times its input once it is over 64 KiB: inflation stops there.
 *
 * @throws AppError MESSAGE_TOO_LARGE, or MALFORMED_MESSAGE if the bytes are not of that encoding
 */
export async function decompress(bytes: Uint8Array, encoding: Encoding, maxBytes: number): Promise<Uint8Array> {
  if (bytes.byteLength === 0) return bytes;
  const ratioBytes = Math.max(freeBytes, bytes.byteLength * maxRatio);
  const maxOutputLength = Math.min(maxBytes, ratioBytes);
  try {
    return await (encoding === "gzip" ? gunzip : brotliDecompress)(bytes, { maxOutputLength });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ERR_BUFFER_TOO_LARGE") {
      if (ratioBytes < maxBytes) {
        throw new AppError("MESSAGE_TOO_LARGE", `the message inflates to more than ${maxRatio} times its size`);
      }
      throw tooLarge(maxBytes);
    }
    throw new AppError("MALFORMED_MESSAGE", `the message is not valid ${encoding}`, { cause: error });
  }
}

/**
 * What the adapter compresses answers with. Requests are inflated before they
 * reach it, but for the message in the query of a GET. Brotli at its default
 * quality of 11 would cost seconds of CPU for a message of 4 MiB; 4 is about as
 * fast as gzip, and smaller.
 */
export const responseCompressions: readonly Compression[] = [
  {
    name: "gzip",
    compress: async (bytes) => plain(await gzip(bytes, {})),
    decompress: async (bytes, maxBytes) => plain(await decompress(bytes, "gzip", maxBytes)),
  },
  {
    name: "br",
    compress: async (bytes) =>
      plain(await brotliCompress(bytes, { params: { [zlib.constants.BROTLI_PARAM_QUALITY]: 4 } })),
    decompress: async (bytes, maxBytes) => plain(await decompress(bytes, "br", maxBytes)),
  },
];

function plain(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  return bytes.buffer instanceof ArrayBuffer ? (bytes as Uint8Array<ArrayBuffer>) : new Uint8Array(bytes);
}
