/**
 * A path template of `google.api.http`, compiled. Variables bind one segment,
 * `{name}` or `{name=*}`, or several, `{name=literal/*}` and `{name=**}`.
 */
export interface PathTemplate {
  /** The text that it was compiled from. */
  readonly source: string;
  readonly segments: readonly Segment[];
  /** The custom verb after the last segment, as in `/v1/things/{id}:undelete`; empty for none. */
  readonly verb: string;
  readonly variables: readonly Variable[];
}

type Segment =
  | { readonly kind: "literal"; readonly text: string }
  /** One segment. */
  | { readonly kind: "one" }
  /** All that remain, also none. */
  | { readonly kind: "rest" };

interface Variable {
  /** The request field that takes the value, for example `session_id` or `session.name`. */
  readonly fieldPath: string;
  /** The first segment that it covers. */
  readonly from: number;
  /** The one after the last. Past the end for a `**`. */
  readonly to: number;
}

/** The values of a template's variables, by field path. */
export type PathVariables = ReadonlyMap<string, string>;

/**
 * Compiles a template (https://github.com/googleapis/googleapis/blob/master/google/api/http.proto,
 * "Path template syntax").
 *
 * @throws TypeError if it is no template
 */
export function parsePathTemplate(source: string): PathTemplate {
  const scanner = new Scanner(source);
  scanner.expect("/");
  const segments: Segment[] = [];
  const variables: Variable[] = [];
  parseSegments(scanner, segments, variables);
  let verb = "";
  if (scanner.take(":")) verb = scanner.literal();
  if (!scanner.atEnd()) throw scanner.fault("unexpected text");
  const rest = segments.findIndex((segment) => segment.kind === "rest");
  if (rest !== -1 && rest !== segments.length - 1) throw scanner.fault("** must be last");
  return { source, segments, verb, variables };
}

function parseSegments(scanner: Scanner, segments: Segment[], variables: Variable[] | undefined): void {
  do {
    if (scanner.take("**")) segments.push({ kind: "rest" });
    else if (scanner.take("*")) segments.push({ kind: "one" });
    else if (variables !== undefined && scanner.take("{")) parseVariable(scanner, segments, variables);
    else segments.push({ kind: "literal", text: scanner.literal() });
  } while (scanner.take("/"));
}

function parseVariable(scanner: Scanner, segments: Segment[], variables: Variable[]): void {
  const fieldPath = scanner.fieldPath();
  if (variables.some((variable) => variable.fieldPath === fieldPath))
    throw scanner.fault(`${fieldPath} is bound twice`);
  const from = segments.length;
  if (scanner.take("=")) parseSegments(scanner, segments, undefined);
  else segments.push({ kind: "one" });
  scanner.expect("}");
  const open = segments.at(-1)?.kind === "rest";
  variables.push({ fieldPath, from, to: open ? Number.POSITIVE_INFINITY : segments.length });
}

class Scanner {
  readonly #source: string;
  #position = 0;

  constructor(source: string) {
    this.#source = source;
  }

  take(text: string): boolean {
    if (!this.#source.startsWith(text, this.#position)) return false;
    this.#position += text.length;
    return true;
  }

  expect(text: string): void {
    if (!this.take(text)) throw this.fault(`expected ${text}`);
  }

  literal(): string {
    return this.#match(/[-_.~0-9a-zA-Z%]+/y, "expected a literal");
  }

  fieldPath(): string {
    return this.#match(/[a-z_][a-z0-9_]*(?:\.[a-z_][a-z0-9_]*)*/y, "expected a field path");
  }

  atEnd(): boolean {
    return this.#position === this.#source.length;
  }

  fault(message: string): TypeError {
    return new TypeError(`path template ${this.#source}: ${message} at character ${this.#position + 1}`);
  }

  #match(pattern: RegExp, message: string): string {
    pattern.lastIndex = this.#position;
    const text = pattern.exec(this.#source)?.[0];
    if (text === undefined) throw this.fault(message);
    this.#position += text.length;
    return text;
  }
}

/**
 * Matches the path of a request, as it came: percent-encoded, without query.
 *
 * Each value has one spelling only: letters, digits and `-_.~` as they are,
 * everything else percent-encoded (RFC 6570, 3.2.2). So what a proxy in front
 * takes for another path (`//`, `..`, `%2e`, `;a=b`, a slash at the end) is
 * another path here as well. `undefined` if it does not match.
 */
export function matchPath(template: PathTemplate, path: string): PathVariables | undefined {
  if (!path.startsWith("/")) return undefined;
  const parts = path.slice(1).split("/");
  const { segments, verb } = template;
  if (verb !== "") {
    const last = parts.at(-1) ?? "";
    if (!last.endsWith(`:${verb}`)) return undefined;
    parts[parts.length - 1] = last.slice(0, -verb.length - 1);
  }
  const open = segments.at(-1)?.kind === "rest";
  const fixed = open ? segments.length - 1 : segments.length;
  if (open ? parts.length < fixed : parts.length !== fixed) return undefined;
  for (const [index, part] of parts.entries()) {
    const segment = segments[Math.min(index, segments.length - 1)];
    if (segment?.kind === "literal" ? part !== segment.text : decodeSegment(part) === undefined) return undefined;
  }
  const variables = new Map<string, string>();
  for (const { fieldPath, from, to } of template.variables) {
    variables.set(fieldPath, parts.slice(from, to).map(decodeSegment).join("/"));
  }
  return variables;
}

/**
 * Builds the path that a template matches with these values.
 *
 * @throws TypeError if a value is missing or the template cannot take it
 */
export function expandPath(template: PathTemplate, values: PathVariables): string {
  const parts = template.segments.map((segment) => (segment.kind === "literal" ? segment.text : ""));
  for (const { fieldPath, from, to } of template.variables) {
    const value = values.get(fieldPath);
    if (value === undefined) throw new TypeError(`no value for ${fieldPath} in ${template.source}`);
    const single = to === from + 1;
    const pieces = single ? [encodeSegment(value)] : value.split("/").map(encodeSegment);
    parts.splice(from, Math.min(to, parts.length) - from, ...pieces);
  }
  return `/${parts.join("/")}${template.verb === "" ? "" : `:${template.verb}`}`;
}

const plain = /^[-_.~0-9a-zA-Z]+$/;

/** One segment's value; `undefined` if that is not how the value is spelled. */
function decodeSegment(part: string): string | undefined {
  if (part === "." || part === "..") return undefined;
  if (plain.test(part)) return part;
  if (!part.includes("%")) return undefined;
  try {
    const value = decodeURIComponent(part);
    return encodeSegment(value) === part ? value : undefined;
  } catch {
    return undefined; // the escapes are no UTF-8
  }
}

/** RFC 6570, 3.2.2: all but the unreserved characters; encodeURIComponent leaves five more. */
function encodeSegment(value: string): string {
  return encodeURIComponent(value).replace(
    /[!'()*]/g,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}
