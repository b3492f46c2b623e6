import {
  type Document,
  isAlias,
  isMap,
  isScalar,
  isSeq,
  LineCounter,
  type Node,
  parseDocument,
  type Scalar,
  type YAMLMap,
  type YAMLSeq,
} from "yaml";
import { exitCode } from "../exit-code.ts";
import { CliError } from "../failure.ts";

/** A value of a YAML document, with its aliases followed. */
export type YamlNode = Scalar | YAMLMap | YAMLSeq;

const maxLength = 4 * 1024 * 1024;
/** Values that a document may have when its aliases are followed. A graph of 1 MiB has fewer. */
const maxNodes = 300_000;
const maxDepth = 96;

/** A parsed YAML document that says where things stand. JSON is YAML, too. */
export class YamlSource {
  readonly #name: string;
  readonly #document: Document.Parsed;
  readonly #lines: LineCounter;
  #nodesLeft = maxNodes;

  constructor(name: string, document: Document.Parsed, lines: LineCounter) {
    this.#name = name;
    this.#document = document;
    this.#lines = lines;
  }

  get root(): YamlNode {
    return this.resolve(this.#document.contents, 0);
  }

  /**
   * The value that a node stands for.
   *
   * @param depth how deep it stands
   * @throws CliError 2 if the document is too large or too deep, as one is whose anchors multiply or contain themselves
   */
  resolve(node: unknown, depth: number): YamlNode {
    this.#nodesLeft -= 1;
    const at = node as Node | null;
    if (this.#nodesLeft < 0) throw this.error(at, `the file has more than ${maxNodes} values, aliases followed`);
    if (depth > maxDepth) throw this.error(at, `the file is nested more than ${maxDepth} deep`);
    if (isAlias(node)) {
      const target = node.resolve(this.#document);
      if (target === undefined) throw this.error(node, `there is no anchor ${node.source}`);
      return this.resolve(target, depth);
    }
    if (isMap(node) || isSeq(node) || isScalar(node)) return node;
    // An empty document, or a key without a value.
    return Object.assign(this.#document.createNode(null) as Scalar, { range: at?.range });
  }

  /** The failure at a place: file, line and column, what is wrong there, and what to do about it. */
  error(node: Node | null | undefined, problem: string, remedy = ""): CliError {
    const { line, col } = this.#lines.linePos(node?.range?.[0] ?? 0);
    return new CliError(exitCode.usage, `${this.#name}:${line}:${col}: ${problem}`, remedy);
  }
}

/** Parses a YAML 1.2 or JSON document. @throws CliError 2 */
export function parseYaml(name: string, text: string): YamlSource {
  if (text.length > maxLength) {
    throw new CliError(exitCode.usage, `${name}: is longer than ${maxLength} characters`, "A graph has 1 MiB at most.");
  }
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, version: "1.2", logLevel: "error" });
  const source = new YamlSource(name, document, lines);
  const [error] = document.errors;
  if (error !== undefined) throw source.error({ range: [error.pos[0], 0, 0] } as unknown as Node, error.message);
  return source;
}
