import { randomPool } from "./random-pool.ts";

/** What an id names; each id begins with it and an underscore. */
export type IdPrefix =
  | "org"
  | "usr"
  | "key"
  | "agt"
  | "ses"
  | "run"
  | "sch"
  | "stp"
  | "tool"
  | "cap"
  | "sec"
  | "evt"
  | "req"
  | "wrk"
  | "call"
  | "dlt"
  | "rev";

const alphabet = "0123456789abcdefghjkmnpqrstvwxyz";
const encodedUuid = /^[0-7][0-9a-hjkmnp-tv-z]{25}$/;
/** What the characters of the alphabet stand for, by their codes; -1 for any other below 128. */
const values = Int8Array.from({ length: 128 }, (_, code) => alphabet.indexOf(String.fromCharCode(code)));

/**
 * Makes ids: a prefix and a UUIDv7 (RFC 9562) in lower-case Crockford base32,
 * 26 characters. Ids of one process are strictly ascending, also within a
 * millisecond.
 *
 * @param now milliseconds since the epoch
 * @param random cryptographically strong random bytes
 */
export function createIdSource(
  now: () => number = Date.now,
  random: (bytes: number) => Uint8Array = randomPool,
): (prefix: IdPrefix) => string {
  let lastMs = 0;
  let counter = 0;
  return (prefix) => {
    const ms = now();
    // rand_a is a 12-bit counter (RFC 9562, 6.2, method 1) that starts in the
    // lower half of its range; when it runs out, time is taken one ahead.
    if (ms > lastMs) {
      lastMs = ms;
      const seed = random(2);
      counter = (((seed[0] ?? 0) << 8) | (seed[1] ?? 0)) & 0x7ff;
    } else if (counter === 0xfff) {
      lastMs += 1;
      counter = 0;
    } else {
      counter += 1;
    }
    const bytes = new Uint8Array(16);
    const view = new DataView(bytes.buffer);
    view.setUint16(0, Math.floor(lastMs / 2 ** 32));
    view.setUint32(2, lastMs % 2 ** 32);
    view.setUint16(6, 0x7000 | counter);
    bytes.set(random(8), 8);
    bytes[8] = 0x80 | ((bytes[8] ?? 0) & 0x3f);
    return `${prefix}_${encode(bytes)}`;
  };
}

/** Makes an id with the clock and randomness of the process. */
export const newId: (prefix: IdPrefix) => string = createIdSource();

/** The UUID of an id, in the form that PostgreSQL takes. Throws TypeError if it is none of that prefix. */
export function toUuid(prefix: IdPrefix, id: string): string {
  const bytes = id.startsWith(`${prefix}_`) ? decode(id.slice(prefix.length + 1)) : undefined;
  if (bytes === undefined) throw new TypeError(`not an id with the prefix ${prefix}`);
  const hex = Buffer.from(bytes).toString("hex");
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}

/** The id of a UUID as PostgreSQL gives it. */
export function fromUuid(prefix: IdPrefix, uuid: string): string {
  return `${prefix}_${encode(Buffer.from(uuid.replaceAll("-", ""), "hex"))}`;
}

/** Whether a text is an id with that prefix. */
export function isId(prefix: IdPrefix, text: string): boolean {
  return text.startsWith(`${prefix}_`) && encodedUuid.test(text.slice(prefix.length + 1));
}

/** 128 bits in 26 characters of 5 bits; the first carries only 3. */
function encode(bytes: Uint8Array): string {
  let text = "";
  let buffer = 0;
  let bits = 2; // two leading zero bits make 130
  for (const byte of bytes) {
    buffer = ((buffer << 8) | byte) & 0xffff;
    bits += 8;
    while (bits >= 5) {
      bits -= 5;
      text += alphabet[(buffer >>> bits) & 31];
    }
  }
  return text;
}

function decode(text: string): Uint8Array | undefined {
  if (text.length !== 26) return undefined;
  const bytes = new Uint8Array(16);
  let buffer = 0;
  let bits = -2;
  let length = 0;
  for (let index = 0; index < text.length; index++) {
    const value = values[text.charCodeAt(index)] ?? -1;
    if (value < 0 || (index === 0 && value > 7)) return undefined;
    buffer = ((buffer << 5) | value) & 0xfff;
    bits += 5;
    if (bits >= 8) {
      bits -= 8;
      bytes[length++] = (buffer >>> bits) & 0xff;
    }
  }
  return bytes;
}
