/**
 * Regular expressions of strangers, matched in linear time.
 *
 * A backtracking engine needs exponential time for `^(a|a)*$`; this one follows
 * all alternatives at once (Thompson 1968; https://swtch.com/~rsc/regexp/regexp1.html)
 * and pays one step for each live state and character, out of a budget.
 *
 * 1. The syntax is ECMAScript's with the flag `u`; `new RegExp` checks it first,
 *    so the parser here sees valid patterns only.
 * 2. A class, an escape or a dot is tested by the native engine on a single
 *    character, so what it means is exactly ECMAScript's.
 * 3. Lookaround and back-references are not regular; they are refused.
 */

/** A pattern that `compilePattern` refuses; the message says why, and is safe to show. */
export class PatternError extends Error {
  override readonly name = "PatternError";
}

/** Thrown when a match needs more steps than the budget has left. */
export class PatternBudgetError extends Error {
  override readonly name = "PatternBudgetError";
}

/** The steps that matches may still take together. Mutable: share one among all patterns of a check. */
export interface PatternBudget {
  steps: number;
}

/** A compiled pattern. */
export interface LinearPattern {
  /**
   * Whether the pattern matches anywhere in the text. Throws
   * PatternBudgetError if the budget ends first.
   */
  test(text: string, budget: PatternBudget): boolean;
}

/** States of a compiled pattern; counted repetition multiplies them. */
const maxStates = 2_000;

type CharacterTest = (codePoint: number) => boolean;

type Node =
  | { readonly type: "character"; readonly test: CharacterTest }
  | { readonly type: "assertion"; readonly kind: AssertionKind }
  | { readonly type: "sequence"; readonly items: readonly Node[] }
  | { readonly type: "choice"; readonly options: readonly Node[] }
  | { readonly type: "repeat"; readonly item: Node; readonly min: number; readonly max: number };

type AssertionKind = "start" | "end" | "boundary" | "notBoundary";

type State =
  | { readonly type: "character"; readonly test: CharacterTest; next: number }
  | { readonly type: "split"; first: number; second: number }
  | { readonly type: "assertion"; readonly kind: AssertionKind; next: number }
  | { readonly type: "match" };

/**
 * Compiles a pattern.
 *
 * @throws PatternError if it is not valid, not regular, or too large
 */
export function compilePattern(source: string): LinearPattern {
  try {
    new RegExp(source, "u");
  } catch (error) {
    throw new PatternError("is not a valid regular expression", { cause: error });
  }
  const states: State[] = [];
  const start = emit(parse(source), states, add(states, { type: "match" }));
  return { test: (text, budget) => simulate(states, start, text, budget) };
}

function parse(source: string): Node {
  const characters = [...source];
  let at = 0;

  function choice(): Node {
    const options = [sequence()];
    while (characters[at] === "|") {
      at += 1;
      options.push(sequence());
    }
    return options.length === 1 && options[0] !== undefined ? options[0] : { type: "choice", options };
  }

  function sequence(): Node {
    const items: Node[] = [];
    while (at < characters.length && characters[at] !== "|" && characters[at] !== ")") items.push(term());
    return { type: "sequence", items };
  }

  function term(): Node {
    const item = atom();
    const bounds = quantifier();
    return bounds === undefined ? item : { type: "repeat", item, ...bounds };
  }

  function quantifier(): { min: number; max: number } | undefined {
    const bounds = quantifierBounds();
    // A lazy quantifier accepts the same texts.
    if (bounds !== undefined && characters[at] === "?") at += 1;
    return bounds;
  }

  function quantifierBounds(): { min: number; max: number } | undefined {
    switch (characters[at]) {
      case "*":
        at += 1;
        return { min: 0, max: Number.POSITIVE_INFINITY };
      case "+":
        at += 1;
        return { min: 1, max: Number.POSITIVE_INFINITY };
      case "?":
        at += 1;
        return { min: 0, max: 1 };
      case "{": {
        const close = characters.indexOf("}", at);
        const [min = "", max] = characters
          .slice(at + 1, close)
          .join("")
          .split(",");
        at = close + 1;
        return {
          min: Number(min),
          max: max === undefined ? Number(min) : max === "" ? Number.POSITIVE_INFINITY : Number(max),
        };
      }
      default:
        return undefined;
    }
  }

  function atom(): Node {
    const character = characters[at] ?? "";
    switch (character) {
      case "^":
        at += 1;
        return { type: "assertion", kind: "start" };
      case "$":
        at += 1;
        return { type: "assertion", kind: "end" };
      case "(":
        return group();
      case "[":
        return characterClass();
      case ".":
        at += 1;
        return { type: "character", test: nativeTest(".") };
      case "\\":
        return escape();
      default: {
        at += 1;
        const expected = character.codePointAt(0);
        return { type: "character", test: (codePoint) => codePoint === expected };
      }
    }
  }

  function group(): Node {
    at += 1;
    if (characters[at] === "?") {
      const rest = characters.slice(at, at + 3).join("");
      if (rest.startsWith("?:")) at += 2;
      else if (rest.startsWith("?<") && rest !== "?<=" && rest !== "?<!") at = characters.indexOf(">", at) + 1;
      else throw new PatternError("uses lookaround or modifiers, which cannot be matched in linear time");
    }
    const inner = choice();
    at += 1;
    return inner;
  }

  function characterClass(): Node {
    const begin = at;
    while (characters[at] !== "]") at += characters[at] === "\\" ? 2 : 1;
    at += 1;
    return { type: "character", test: nativeTest(characters.slice(begin, at).join("")) };
  }

  function escape(): Node {
    const begin = at;
    const kind = characters[at + 1] ?? "";
    at += 2;
    if (kind === "b") return { type: "assertion", kind: "boundary" };
    if (kind === "B") return { type: "assertion", kind: "notBoundary" };
    if (/[1-9k]/.test(kind)) throw new PatternError("uses a back-reference, which cannot be matched in linear time");
    if (kind === "p" || kind === "P") at = characters.indexOf("}", at) + 1;
    else if (kind === "u" && characters[at] === "{") at = characters.indexOf("}", at) + 1;
    else if (kind === "u") {
      at += 4;
      // Two escapes of a surrogate pair are one character.
      const lead = Number.parseInt(characters.slice(at - 4, at).join(""), 16);
      const following = characters.slice(at, at + 6).join("");
      if (lead >= 0xd800 && lead <= 0xdbff && /^\\u[dD][c-fC-F][0-9a-fA-F]{2}$/.test(following)) at += 6;
    } else if (kind === "x") at += 2;
    else if (kind === "c") at += 1;
    return { type: "character", test: nativeTest(characters.slice(begin, at).join("")) };
  }

  return choice();
}

/** Tests one character with the native engine, remembering what it said of ASCII. */
function nativeTest(source: string): CharacterTest {
  const pattern = new RegExp(`^${source}$`, "u");
  const known = new Int8Array(128);
  return (codePoint) => {
    if (codePoint >= 128) return pattern.test(String.fromCodePoint(codePoint));
    if (known[codePoint] === 0) known[codePoint] = pattern.test(String.fromCodePoint(codePoint)) ? 1 : -1;
    return known[codePoint] === 1;
  };
}

function add(states: State[], state: State): number {
  if (states.length >= maxStates) throw new PatternError(`needs more than ${maxStates} states`);
  return states.push(state) - 1;
}

/** Builds the states of a node that go on to `next`, back to front; returns the first. */
function emit(node: Node, states: State[], next: number): number {
  switch (node.type) {
    case "character":
      return add(states, { type: "character", test: node.test, next });
    case "assertion":
      return add(states, { type: "assertion", kind: node.kind, next });
    case "sequence":
      // An empty one is a state as well: each leaf counts, so that `maxStates` bounds the work of nested repetition.
      if (node.items.length === 0) return add(states, { type: "split", first: next, second: next });
      return node.items.reduceRight((following, item) => emit(item, states, following), next);
    case "choice":
      return node.options
        .map((option) => emit(option, states, next))
        .reduceRight((second, first) => add(states, { type: "split", first, second }));
    case "repeat": {
      let following = next;
      if (node.max === Number.POSITIVE_INFINITY) {
        const loop: State = { type: "split", first: next, second: next };
        following = add(states, loop);
        loop.first = emit(node.item, states, following);
      } else {
        // `max - min` optional copies, each of which may leave for `next`.
        for (let count = node.min; count < node.max; count++) {
          following = add(states, { type: "split", first: emit(node.item, states, following), second: next });
        }
      }
      for (let count = 0; count < node.min; count++) following = emit(node.item, states, following);
      return following;
    }
  }
}

function simulate(states: readonly State[], start: number, text: string, budget: PatternBudget): boolean {
  let live: number[] = [];
  // The position at which a state was added last; a state is followed once for each.
  const seenAt = new Int32Array(states.length).fill(-1);
  let position = 0;
  let before = -1;
  for (;;) {
    const codePoint = position < text.length ? (text.codePointAt(position) ?? -1) : -1;
    // A match may begin at every position, so the start is always live.
    const pending = [start, ...live.reverse()];
    live = [];
    const characters: number[] = [];
    for (let index = pending.pop(); index !== undefined; index = pending.pop()) {
      if (seenAt[index] === position) continue;
      seenAt[index] = position;
      budget.steps -= 1;
      if (budget.steps < 0) throw new PatternBudgetError("the pattern takes too long on this text");
      const state = states[index];
      if (state === undefined) continue;
      if (state.type === "match") return true;
      if (state.type === "split") pending.push(state.second, state.first);
      else if (state.type === "character") characters.push(index);
      else if (holds(state.kind, before, codePoint)) pending.push(state.next);
    }
    if (codePoint === -1) return false;
    for (const index of characters) {
      const state = states[index];
      if (state?.type === "character" && state.test(codePoint)) live.push(state.next);
    }
    before = codePoint;
    position += codePoint > 0xffff ? 2 : 1;
  }
}

function holds(kind: AssertionKind, before: number, after: number): boolean {
  switch (kind) {
    case "start":
      return before === -1;
    case "end":
      return after === -1;
    case "boundary":
      return isWord(before) !== isWord(after);
    case "notBoundary":
      return isWord(before) === isWord(after);
  }
}

function isWord(codePoint: number): boolean {
  return codePoint >= 0 && codePoint < 128 && /\w/.test(String.fromCodePoint(codePoint));
}
