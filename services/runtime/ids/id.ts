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
const characters = Buffer.from(alphabet);
/** What the characters of the alphabet stand for, by their codes; -1 for any other below 128. */
const values = Int8Array.from({ length: 128 }, (_, code) => alphabet.indexOf(String.fromCharCode(code)));
const digits = Buffer.from("0123456789abcdef");
/** What hexadecimal digits stand for, by their codes; -1 for any other below 128. */
const nibbles = Int8Array.from({ length: 128 }, (_, code) => digits.indexOf(String.fromCharCode(code).toLowerCase()));
/** Where the two digits of each byte stand in the text of a UUID. */
const places = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];

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
  const start = prefix.length + 1;
  if (id.length !== start + 26 || !id.startsWith(prefix) || id[prefix.length] !== "_" || !writeUuid(id, start)) {
    throw new TypeError(`not an id with the prefix ${prefix}`);
  }
  return uuidText.toString("latin1");
}

/** The id of a UUID as PostgreSQL gives it. Throws TypeError if it is none. */
export function fromUuid(prefix: IdPrefix, uuid: string): string {
  let length = 0;
  let high = -1;
  for (let index = 0; index < uuid.length; index++) {
    const nibble = nibbles[uuid.charCodeAt(index)] ?? -1;
    if (nibble < 0) continue;
    if (high < 0) {
      high = nibble;
    } else {
      uuidBytes[length++] = (high << 4) | nibble;
      high = -1;
    }
  }
  if (length !== 16 || high >= 0) throw new TypeError("not a UUID");
  return `${prefix}_${encode(uuidBytes)}`;
}

/** Whether a text is an id with that prefix. */
export function isId(prefix: IdPrefix, text: string): boolean {
  return text.startsWith(`${prefix}_`) && encodedUuid.test(text.slice(prefix.length + 1));
}

// Ids and UUIDs are written here, character by character, and then made at
// once: pieces that are joined are garbage, dozens of times in a run.
const idText = Buffer.alloc(26);
const uuidText = Buffer.alloc(36, "-");
const uuidBytes = new Uint8Array(16);

/** 128 bits in 26 characters of 5 bits; the first carries only 3. */
function encode(bytes: Uint8Array): string {
  let length = 0;
  let buffer = 0;
  let bits = 2; // two leading zero bits make 130
  for (let index = 0; index < 16; index++) {
    buffer = ((buffer << 8) | (bytes[index] ?? 0)) & 0xffff;
    bits += 8;
    while (bits >= 5) {
      bits -= 5;
      idText[length++] = characters[(buffer >>> bits) & 31] ?? 0;
    }
  }
  return idText.toString("latin1");
}

/** Writes the UUID of 26 characters of a text. Returns whether they are an id's. */
function writeUuid(text: string, start: number): boolean {
  let buffer = 0;
  let bits = -2;
  let length = 0;
  for (let index = 0; index < 26; index++) {
    const value = values[text.charCodeAt(start + index)] ?? -1;
    if (value < 0 || (index === 0 && value > 7)) return false;
    buffer = ((buffer << 5) | value) & 0xfff;
    bits += 5;
    if (bits >= 8) {
      bits -= 8;
      const place = places[length++] ?? 0;
      uuidText[place] = digits[(buffer >>> (bits + 4)) & 15] ?? 0;
      uuidText[place + 1] = digits[(buffer >>> bits) & 15] ?? 0;
    }
  }
  return true;
}
