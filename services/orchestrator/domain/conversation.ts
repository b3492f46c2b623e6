/**
 * What the model is shown. The rule by which it is cut, when the conversation
 * outgrows what the model reads:
 *
 * 1. Instructions, tools and the turn at hand are always shown whole. If they
 *    alone do not fit, the turn ends with TURN_LIMIT.
 * 2. A quarter of the model's context, at most 8,192 tokens, is kept for the answer.
 * 3. Older turns are left out whole, oldest first, until the rest fits.
 *
 * Tokens are estimated from bytes, at three to a token, which is more than the
 * usual tokenizers count for prose and code.
 */
import type { ToolCall, ToolOutcome } from "./entry.ts";
import type { Run } from "./run.ts";

/** A message that a model reads. */
export type Message =
  | { readonly role: "user"; readonly text: string }
  | { readonly role: "assistant"; readonly text: string; readonly toolCalls: readonly ToolCall[] }
  | { readonly role: "tool"; readonly callId: string; readonly tool: string; readonly outcome: ToolOutcome };

/** A past turn as the model is shown it. */
export interface PastTurn {
  readonly runId: string;
  readonly messages: readonly Message[];
  /** Estimated. */
  readonly tokens: number;
}

const bytesPerToken = 3;
const tokensPerMessage = 8;

/** Estimates the tokens of a text; rather too many than too few. */
export function estimateTokens(text: string): number {
  return Math.ceil(Buffer.byteLength(text) / bytesPerToken);
}

/** Estimates the tokens of messages. */
export function estimateMessages(messages: readonly Message[]): number {
  let tokens = 0;
  for (const message of messages) {
    tokens += tokensPerMessage;
    if (message.role === "tool") tokens += estimateTokens(outcomeText(message.outcome));
    else tokens += estimateTokens(message.text);
    if (message.role === "assistant") {
      for (const call of message.toolCalls) {
        tokens += tokensPerMessage + estimateTokens(call.tool) + estimateTokens(argumentsText(call));
      }
    }
  }
  return tokens;
}

/** The arguments of a call as the model wrote them. */
export function argumentsText(call: ToolCall): string {
  return call.malformed === "" ? JSON.stringify(call.arguments) : call.malformed;
}

/** What a model is told of a tool's call. */
export function outcomeText(outcome: ToolOutcome): string {
  if (outcome.type === "error") return JSON.stringify({ error: outcome.error });
  return typeof outcome.value === "string" ? outcome.value : JSON.stringify(outcome.value);
}

/** The messages of a run so far. Calls without an outcome are shown as cancelled, since models insist on one for each. */
export function runMessages(run: Run): readonly Message[] {
  const messages: Message[] = [{ role: "user", text: run.accepted.text }];
  for (const round of run.rounds) {
    if (round.result === undefined) continue;
    messages.push({ role: "assistant", text: round.result.text, toolCalls: round.result.toolCalls });
    for (const [index, call] of round.result.toolCalls.entries()) {
      const outcome = round.tools[index]?.outcome ?? {
        type: "error",
        error: { reason: "CANCELLED", message: "the call was cancelled" },
      };
      messages.push({ role: "tool", callId: call.callId, tool: call.tool, outcome });
    }
    if (round.rejected !== undefined) {
      messages.push({
        role: "user",
        text: `The answer does not hold to the JSON Schema that was asked for: ${round.rejected}. Answer again with nothing but the corrected JSON.`,
      });
    }
  }
  return messages;
}

/** A run that ended, as later turns show it to the model. */
export function pastTurn(run: Run): PastTurn {
  const messages = runMessages(run);
  return { runId: run.runId, messages, tokens: estimateMessages(messages) };
}

/** What is shown, or that even the turn at hand does not fit. */
export type FittedContext =
  | { readonly fits: true; readonly messages: readonly Message[]; readonly turnsLeftOut: number }
  | { readonly fits: false; readonly tokens: number; readonly budget: number };

/**
 * Cuts a conversation by the rule above.
 *
 * @param history past turns, oldest first
 * @param olderTurns turns before `history` that were not even loaded
 * @param fixedTokens of instructions, tools and schema, estimated
 * @param contextTokens what the model reads at most
 */
export function fitContext(
  history: readonly PastTurn[],
  olderTurns: number,
  run: Run,
  fixedTokens: number,
  contextTokens: number,
): FittedContext {
  const budget = promptBudget(contextTokens);
  const own = runMessages(run);
  let tokens = fixedTokens + estimateMessages(own);
  if (tokens > budget) return { fits: false, tokens, budget };
  let first = history.length;
  while (first > 0) {
    const turn = history[first - 1];
    if (turn === undefined || tokens + turn.tokens > budget) break;
    tokens += turn.tokens;
    first -= 1;
  }
  return {
    fits: true,
    messages: [...history.slice(first).flatMap((turn) => turn.messages), ...own],
    turnsLeftOut: olderTurns + first,
  };
}

/** How many tokens of a model's context its prompt may take. */
export function promptBudget(contextTokens: number): number {
  return contextTokens - Math.min(Math.floor(contextTokens / 4), 8_192);
}
