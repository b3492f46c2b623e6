import type { AppError } from "../../../runtime/errors/app-error.ts";
import { invalidSchema } from "../schema-fault.ts";
import { type Token, tokenize } from "./tokenize.ts";

const maxNameLength = 512;

/** Reads the words of a `.proto` file one after the other. What is not as expected is INVALID_SCHEMA with its place. */
export class TokenReader {
  readonly #tokens: readonly Token[];
  #position = 0;

  constructor(text: string) {
    this.#tokens = tokenize(text);
  }

  /** The next word, or one further ahead. */
  peek(ahead = 0): Token {
    const token = this.#tokens[Math.min(this.#position + ahead, this.#tokens.length - 1)];
    if (token === undefined) throw new TypeError("tokens end with their end");
    return token;
  }

  next(): Token {
    const token = this.peek();
    if (token.kind !== "end") this.#position += 1;
    return token;
  }

  isSymbol(text: string, ahead = 0): boolean {
    const token = this.peek(ahead);
    return token.kind === "symbol" && token.text === text;
  }

  isWord(text: string, ahead = 0): boolean {
    const token = this.peek(ahead);
    return token.kind === "identifier" && token.text === text;
  }

  /** Passes a symbol or a word if it is next. */
  take(text: string): boolean {
    if (!this.isSymbol(text) && !this.isWord(text)) return false;
    this.#position += 1;
    return true;
  }

  expect(text: string): void {
    if (!this.take(text)) throw this.fault(`expected ${JSON.stringify(text)}`);
  }

  identifier(what: string): string {
    if (this.peek().kind !== "identifier") throw this.fault(`expected ${what}`);
    return this.next().text;
  }

  /** `a.b.c`. */
  dottedName(what: string): string {
    let name = this.identifier(what);
    while (this.take(".")) {
      name += `.${this.identifier(what)}`;
      if (name.length > maxNameLength) throw this.fault(`${what} has at most ${maxNameLength} characters`);
    }
    return name;
  }

  /** `a.b.C` or `.a.b.C`. */
  typeName(): string {
    const dot = this.take(".") ? "." : "";
    return dot + this.dottedName("the name of a type");
  }

  /** Strings that follow each other are one; as UTF-8. */
  text(what: string): string {
    return Buffer.from(this.bytes(what), "latin1").toString("utf8");
  }

  /** The same, one character a byte. */
  bytes(what: string): string {
    if (this.peek().kind !== "string") throw this.fault(`expected ${what} in quotes`);
    let text = "";
    while (this.peek().kind === "string") text += this.next().text;
    return text;
  }

  /** An integer from `min` to `max`. */
  integer(what: string, min: number, max: number): number {
    const isNegative = this.isSymbol("-");
    const token = this.peek(isNegative ? 1 : 0);
    if (token.kind !== "integer") throw this.fault(`expected ${what}`);
    const value = (isNegative ? -1 : 1) * Number(integerValue(token.text));
    if (value < min || value > max) throw this.fault(`${what} is ${min} to ${max}`);
    if (isNegative) this.next();
    this.next();
    return value;
  }

  fault(message: string): AppError {
    const { kind, text, line, column } = this.peek();
    const found = kind === "end" ? "the end of the file" : JSON.stringify(text.slice(0, 40));
    return invalidSchema(`${message}, found ${found}`, `line ${line}, column ${column}`);
  }
}

/** What an integer's text means: decimal, hexadecimal or octal. */
export function integerValue(text: string): bigint {
  return BigInt(/^0[0-7]+$/.test(text) ? `0o${text.slice(1)}` : text);
}
