/**
 * A stand-in for a language model, for development and tests. It understands
 * nothing; it plays a script, and does a little by itself.
 *
 * A script is any message of the user with a line that begins with one of:
 *
 *     say The weather is fine.      writes the words one by one; nothing is put between two lines
 *     call calculator {"expression":"2+2"}
 *     wait 50ms                     or `wait 2s`; at most a minute
 *     fail the provider is down     fails this attempt for good
 *     cut                           breaks off as if the connection were lost; once
 *     answer                        writes what the last tool gave
 *
 * Lines are played in order. `call` lines next to each other are asked for at
 * once, and what follows waits for their results; other lines are ignored.
 *
 * Without a script it calls a tool that the message names (`calculator: 2+2`,
 * `use calculator 2+2`), answers with the tool's result, or says what it heard.
 */
import { setTimeout as delay } from "node:timers/promises";
import { estimateMessages, estimateTokens, type Message, outcomeText } from "../domain/conversation.ts";
import type { ToolCall } from "../domain/entry.ts";
import type { Json, JsonObject } from "../domain/json.ts";
import { type Model, ModelCallError, type ModelEvent, type ModelRequest, type OfferedTool } from "./model.ts";

/** A line of a script. */
type Line =
  | { readonly verb: "say"; readonly text: string }
  | { readonly verb: "call"; readonly tool: string; readonly json: string }
  | { readonly verb: "wait"; readonly ms: number }
  | { readonly verb: "fail"; readonly message: string }
  | { readonly verb: "cut" }
  | { readonly verb: "answer" };

export interface ScriptedModelOptions {
  /** Default 32,768. */
  readonly contextTokens?: number;
  /** How long each word takes, in milliseconds. Default 0. */
  readonly wordMs?: number;
}

const longestWaitMs = 60_000;
/** Steps whose stream was cut once already; bounded, oldest out first. */
const maxRememberedCuts = 1_000;

/** Makes the model `scripted`. */
export function createScriptedModel(options: ScriptedModelOptions = {}): Model {
  const wordMs = options.wordMs ?? 0;
  const cuts = new Set<string>();
  return {
    name: "scripted",
    provider: "scripted",
    contextTokens: options.contextTokens ?? 32_768,
    available: true,
    async *stream(request, signal): AsyncIterable<ModelEvent> {
      let outputTokens = 0;
      for (const line of plan(request)) {
        signal.throwIfAborted();
        switch (line.verb) {
          case "say":
          case "answer": {
            const text = line.verb === "say" ? line.text : lastOutcome(request.messages);
            outputTokens += estimateTokens(text);
            for (const word of text.match(/\s*\S+\s*$|\s*\S+/g) ?? []) {
              if (wordMs > 0) await delay(wordMs, undefined, { signal });
              yield { type: "text", text: word };
            }
            break;
          }
          case "call": {
            const call = toCall(line, request, outputTokens);
            outputTokens += estimateTokens(line.json) + 8;
            yield { type: "tool-call", call };
            break;
          }
          case "wait":
            await delay(line.ms, undefined, { signal });
            break;
          case "fail":
            throw new ModelCallError({ reason: "MODEL_FAILED", message: line.message }, false);
          case "cut":
            if (cuts.has(request.stepId)) break;
            cuts.add(request.stepId);
            if (cuts.size > maxRememberedCuts) cuts.delete(cuts.values().next().value ?? "");
            throw new ModelCallError({ reason: "MODEL_FAILED", message: "the stream was cut" }, true);
        }
      }
      const inputTokens = estimateTokens(request.instructions) + estimateMessages(request.messages);
      yield { type: "end", inputTokens, outputTokens };
    },
  };
}

/** The lines to play now: those between the calls that were made already and the next calls. */
function plan(request: ModelRequest): readonly Line[] {
  const lastUser = request.messages.findLastIndex((message) => message.role === "user");
  const prompt = request.messages[lastUser];
  if (prompt === undefined || prompt.role !== "user") return [{ verb: "say", text: "I have nothing to answer." }];
  const rounds = request.messages.slice(lastUser + 1).filter((message) => message.role === "assistant").length;
  const script = parseScript(prompt.text);
  return script.length > 0 ? portion(script, rounds) : improvise(prompt.text, rounds, request);
}

/** Cuts a script behind each group of calls. */
function portion(script: readonly Line[], rounds: number): readonly Line[] {
  const portions: Line[][] = [[]];
  let calling = false;
  for (const line of script) {
    if (calling && line.verb !== "call") portions.push([]);
    calling = line.verb === "call";
    portions.at(-1)?.push(line);
  }
  return portions[rounds] ?? [{ verb: "answer" }];
}

function parseScript(text: string): readonly Line[] {
  const lines: Line[] = [];
  for (const line of text.split("\n")) {
    const [verb = "", ...words] = line.trim().split(" ");
    const rest = words.join(" ").trim();
    switch (verb) {
      case "say":
        if (rest !== "") lines.push({ verb, text: rest });
        break;
      case "call": {
        const [tool = "", ...json] = rest.split(" ");
        if (/^[a-z][a-z0-9_]*$/.test(tool)) lines.push({ verb, tool, json: json.join(" ").trim() || "{}" });
        break;
      }
      case "wait": {
        const ms = waitMs(rest);
        if (ms !== undefined) lines.push({ verb, ms });
        break;
      }
      case "fail":
        if (rest !== "") lines.push({ verb, message: rest });
        break;
      case "cut":
      case "answer":
        if (rest === "") lines.push({ verb });
        break;
    }
  }
  return lines;
}

function waitMs(text: string): number | undefined {
  const match = /^(\d{1,6})(ms|s)$/.exec(text);
  if (match === null) return undefined;
  return Math.min(Number(match[1]) * (match[2] === "s" ? 1_000 : 1), longestWaitMs);
}

function improvise(text: string, rounds: number, request: ModelRequest): readonly Line[] {
  if (rounds > 0) return [{ verb: "answer" }];
  if (request.answerSchema !== undefined) return [{ verb: "say", text: JSON.stringify(example(request.answerSchema)) }];
  const named = request.tools.find((tool) => mentions(text, tool.name));
  if (named !== undefined) {
    return [{ verb: "call", tool: named.name, json: JSON.stringify(guessArguments(text, named)) }];
  }
  return [{ verb: "say", text: `You said: ${text.trim()}` }];
}

function mentions(text: string, tool: string): boolean {
  return text
    .toLowerCase()
    .split(/[^a-z0-9_]+/)
    .includes(tool);
}

/** Fills a tool's required fields (or its first) with what follows its name in the text. */
function guessArguments(text: string, tool: OfferedTool): JsonObject {
  const at = text.toLowerCase().indexOf(tool.name) + tool.name.length;
  const rest = text
    .slice(at)
    .replace(/^[\s:,]+(to|for|with)?\s*/i, "")
    .trim()
    .replace(/[?.!]$/, "");
  if (rest.startsWith("{")) {
    try {
      const parsed: unknown = JSON.parse(rest);
      if (typeof parsed === "object" && parsed !== null && !Array.isArray(parsed)) return parsed as JsonObject;
    } catch {
      // Not JSON after all: it is the text of the first field.
    }
  }
  const properties = isObject(tool.inputSchema.properties) ? tool.inputSchema.properties : {};
  const required = Array.isArray(tool.inputSchema.required) ? tool.inputSchema.required.map(String) : [];
  const fields = required.length > 0 ? required : Object.keys(properties).slice(0, 1);
  return Object.fromEntries(
    fields.map((field) => {
      const schema = properties[field];
      const type = isObject(schema) ? schema.type : undefined;
      return [field, type === "number" || type === "integer" ? Number.parseFloat(rest) || 0 : rest];
    }),
  );
}

/** A value that holds to a simple schema. */
function example(schema: JsonObject): JsonObject[string] {
  if (schema.const !== undefined) return schema.const;
  if (Array.isArray(schema.enum)) return schema.enum[0] ?? null;
  switch (schema.type) {
    case "object": {
      const properties = isObject(schema.properties) ? schema.properties : {};
      return Object.fromEntries(
        Object.entries(properties).map(([name, value]) => [name, isObject(value) ? example(value) : null]),
      );
    }
    case "array":
      return [];
    case "number":
    case "integer":
      return typeof schema.minimum === "number" ? schema.minimum : 0;
    case "boolean":
      return true;
    case "string":
      return "text";
    default:
      return null;
  }
}

function toCall(line: Extract<Line, { verb: "call" }>, request: ModelRequest, salt: number): ToolCall {
  const callId = `call_${request.stepId.slice(-12)}_${salt}_${line.tool}`;
  try {
    const parsed: unknown = JSON.parse(line.json);
    if (isObject(parsed)) return { callId, tool: line.tool, arguments: parsed, malformed: "" };
  } catch {
    // A model may write what is no JSON; the engine has to cope, so the script may, too.
  }
  return { callId, tool: line.tool, arguments: {}, malformed: line.json };
}

function lastOutcome(messages: readonly Message[]): string {
  const last = messages.findLast((message) => message.role === "tool");
  if (last === undefined) return "There is no result.";
  const { outcome } = last;
  if (outcome.type === "error") return `${last.tool} failed: ${outcome.error.message}`;
  return `${last.tool} says: ${outcomeText({ type: "value", value: unwrapped(outcome.value) })}`;
}

/** The value of an object with one field, which is what it is about. */
function unwrapped(value: Json): Json {
  const fields = isObject(value) ? Object.values(value) : [];
  return fields.length === 1 && fields[0] !== undefined ? fields[0] : value;
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
