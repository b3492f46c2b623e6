import { isReservedHeader } from "./reserved-header.ts";

/** The headers of a call that came in, where the wire has them: read one by one until somebody wants them all. */
export interface HeaderSource {
  /** A header's value; `null` for none. The name is in lower case. */
  get(name: string): string | null;
  /** All of them, each name once, in lower case. */
  entries(): Iterable<readonly [name: string, value: string]>;
}

const lowerCaseName = /^[!#$%&'*+.^_`|~0-9a-z-]+$/;
const anyCaseName = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;
const forbiddenInValue = /[^\x01-\x09\x0b\x0c\x0e-\xff]/;
const blanks = /^[\t\n\r ]+|[\t\n\r ]+$/g;

/**
 * The headers of one call in the mesh: the platform's `Headers`, by the same
 * rules (https://fetch.spec.whatwg.org/#headers-class), without their cost,
 * which is 2 µs a header and most of a call in memory. Two differences: they
 * come in the order in which they were set, and `set-cookie`, which no service
 * of the mesh sends, is a header like any other.
 */
export class CallHeader implements Headers {
  #values: Map<string, string> | undefined;
  #source: HeaderSource | undefined;

  /** @param source where they are read until the first change */
  constructor(source?: HeaderSource) {
    this.#source = source;
  }

  /** A copy, of whatever form the platform takes. */
  static from(init: HeadersInit | undefined): CallHeader {
    const copy = new CallHeader();
    if (init === undefined) return copy;
    for (const [name, value] of Symbol.iterator in init ? init : Object.entries(init)) copy.append(name, value);
    return copy;
  }

  /** Headers as they arrive on the other side of a call: a copy, without the reserved ones. */
  static crossed(headers: Headers): CallHeader {
    const copy = new CallHeader();
    if (headers instanceof CallHeader && headers.isEmpty) return copy;
    const values = new Map<string, string>();
    for (const [name, value] of headers) if (!isReservedHeader(name)) values.set(name, value);
    copy.#values = values;
    return copy;
  }

  /** Whether there is none. */
  get isEmpty(): boolean {
    return this.#source === undefined && (this.#values === undefined || this.#values.size === 0);
  }

  get(name: string): string | null {
    const value = this.#read(name);
    return value === null && !lowerCaseName.test(name) ? this.#read(name.toLowerCase()) : value;
  }

  has(name: string): boolean {
    return this.get(name) !== null;
  }

  set(name: string, value: string): void {
    this.#all().set(toKey(name), toValue(name, value));
  }

  append(name: string, value: string): void {
    const values = this.#all();
    const key = toKey(name);
    const before = values.get(key);
    const added = toValue(name, value);
    values.set(key, before === undefined ? added : `${before}, ${added}`);
  }

  delete(name: string): void {
    this.#all().delete(toKey(name));
  }

  getSetCookie(): string[] {
    const value = this.get("set-cookie");
    return value === null ? [] : [value];
  }

  forEach(callback: (value: string, name: string, parent: Headers) => void): void {
    for (const [name, value] of this.#all()) callback(value, name, this);
  }

  entries() {
    return this.#all().entries();
  }

  keys() {
    return this.#all().keys();
  }

  values() {
    return this.#all().values();
  }

  [Symbol.iterator]() {
    return this.#all().entries();
  }

  #read(name: string): string | null {
    return this.#source === undefined ? (this.#values?.get(name) ?? null) : this.#source.get(name);
  }

  #all(): Map<string, string> {
    if (this.#source !== undefined) {
      this.#values = new Map(this.#source.entries());
      this.#source = undefined;
    }
    this.#values ??= new Map();
    return this.#values;
  }
}

function toKey(name: string): string {
  if (lowerCaseName.test(name)) return name;
  if (!anyCaseName.test(name)) throw new TypeError("a header's name has characters that no name may have");
  return name.toLowerCase();
}

function toValue(name: string, value: string): string {
  const text = trimmed(String(value));
  if (forbiddenInValue.test(text)) throw new TypeError(`${name}: has characters that no header may have`);
  return text;
}

function trimmed(value: string): string {
  return isBlank(value.charCodeAt(0)) || isBlank(value.charCodeAt(value.length - 1))
    ? value.replace(blanks, "")
    : value;
}

function isBlank(code: number): boolean {
  return code === 0x20 || code === 0x09 || code === 0x0a || code === 0x0d;
}
