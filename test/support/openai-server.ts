import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as delay } from "node:timers/promises";

/** A part of a streamed answer. */
export type Part =
  | { readonly text: string }
  /** A piece of a tool call; `id` and `name` come with the first one. */
  | { readonly call: number; readonly id?: string; readonly name?: string; readonly json?: string }
  | { readonly waitMs: number };

/** How the server answers one request. */
export type Answer =
  | {
      readonly parts: readonly Part[];
      readonly finish?: "stop" | "tool_calls" | "length" | "content_filter";
      readonly usage?: { readonly prompt: number; readonly completion: number };
      /** Leaves `role` out of all deltas, as some servers do. */
      readonly omitRole?: boolean;
      /** Breaks the connection after the parts, without a finish_reason. */
      readonly cut?: boolean;
    }
  | { readonly status: number; readonly retryAfter?: string; readonly body?: unknown }
  /** Accepts the request and never answers. */
  | { readonly silent: true };

/** A request as it came. */
export interface SeenRequest {
  readonly path: string;
  readonly authorization: string;
  readonly atMs: number;
  readonly body: {
    readonly model: string;
    readonly stream: boolean;
    readonly stream_options?: unknown;
    readonly messages: readonly {
      readonly role: string;
      readonly content: string | null;
      readonly tool_call_id?: string;
      readonly tool_calls?: readonly { readonly id: string; readonly function: { name: string; arguments: string } }[];
    }[];
    readonly tools?: readonly { readonly type: string; readonly function: { name: string; parameters: unknown } }[];
    readonly response_format?: unknown;
  };
}

/** A server that speaks OpenAI's chat completions over HTTP. */
export interface OpenAiServer {
  readonly baseUrl: string;
  readonly requests: SeenRequest[];
  /** Answers in order; a request more than that is answered with 500. */
  readonly answers: Answer[];
  close(): Promise<void>;
}

/** The key that the server accepts. */
export const openAiTestKey = "test-key-0123456789";

/**
 * Starts the server on a free port. It holds requests to what the protocol
 * says, and answers a request that breaks it with 400.
 */
export async function startOpenAiServer(): Promise<OpenAiServer> {
  const requests: SeenRequest[] = [];
  const answers: Answer[] = [];
  const server = createServer((request, response) => {
    handle(request, response, requests, answers).catch((error: unknown) => response.destroy(error as Error));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return {
    baseUrl: `http://127.0.0.1:${port}/v1`,
    requests,
    answers,
    async close() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

async function handle(
  request: IncomingMessage,
  response: ServerResponse,
  requests: SeenRequest[],
  answers: Answer[],
): Promise<void> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  const authorization = request.headers.authorization ?? "";
  const body = JSON.parse(Buffer.concat(chunks).toString()) as SeenRequest["body"];
  requests.push({ path: request.url ?? "", authorization, atMs: performance.now(), body });
  const refuse = (status: number, message: string, headers: Record<string, string> = {}): void => {
    response.writeHead(status, { "content-type": "application/json", ...headers });
    response.end(JSON.stringify({ error: { message, type: "error" } }));
  };
  if (request.method !== "POST" || request.url !== "/v1/chat/completions") return refuse(404, "no such route");
  if (authorization !== `Bearer ${openAiTestKey}`) return refuse(401, `the key ${authorization} is wrong`);
  const problem = problemOf(body);
  if (problem !== undefined) return refuse(400, problem);
  const answer = answers.shift();
  if (answer === undefined) return refuse(500, "no answer was prepared");
  if ("silent" in answer) return;
  if ("status" in answer) {
    return refuse(
      answer.status,
      "refused",
      answer.retryAfter === undefined ? {} : { "retry-after": answer.retryAfter },
    );
  }
  response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-cache" });
  const send = (data: object): void => {
    response.write(
      `data: ${JSON.stringify({ id: "chatcmpl-1", object: "chat.completion.chunk", created: 1, model: body.model, ...data })}\n\n`,
    );
  };
  let first = answer.omitRole !== true;
  const delta = (fields: object, finish: string | null = null): void => {
    send({ choices: [{ index: 0, delta: first ? { role: "assistant", ...fields } : fields, finish_reason: finish }] });
    first = false;
  };
  for (const part of answer.parts) {
    if ("waitMs" in part) await delay(part.waitMs);
    else if ("text" in part) delta({ content: part.text });
    else {
      const { call: index, id, name, json } = part;
      const named = { ...(name === undefined ? {} : { name }), ...(json === undefined ? {} : { arguments: json }) };
      const typed = id === undefined ? {} : { id, type: "function" };
      delta({ tool_calls: [{ index, ...typed, function: named }] });
    }
  }
  if (answer.cut === true) {
    // What was written has to leave before the connection does.
    await delay(20);
    response.destroy();
    return;
  }
  delta({}, answer.finish ?? "stop");
  if (answer.usage !== undefined) {
    const { prompt, completion } = answer.usage;
    send({
      choices: [],
      usage: { prompt_tokens: prompt, completion_tokens: completion, total_tokens: prompt + completion },
    });
  }
  response.end("data: [DONE]\n\n");
}

/** What breaks the protocol: the rules that OpenAI's server enforces and that an agent's loop can get wrong. */
function problemOf(body: SeenRequest["body"]): string | undefined {
  if (typeof body.model !== "string" || body.model === "") return "no model";
  if (body.stream !== true) return "not a stream";
  if (!Array.isArray(body.messages) || body.messages.length === 0) return "no messages";
  const open = new Set<string>();
  for (const [index, message] of body.messages.entries()) {
    if (message.role === "tool") {
      if (!open.delete(message.tool_call_id ?? "")) return `message ${index} answers no call`;
      if (typeof message.content !== "string") return `message ${index} has no content`;
      continue;
    }
    if (open.size > 0) return `message ${index} comes before the results of ${[...open].join()}`;
    if (message.role === "system" && index > 0) return `message ${index} is a late system message`;
    if (message.role === "assistant") {
      for (const call of message.tool_calls ?? []) {
        if (typeof call.function.arguments !== "string") return `message ${index} has arguments that are no text`;
        open.add(call.id);
      }
      if (message.content === null && (message.tool_calls ?? []).length === 0) return `message ${index} is empty`;
    }
  }
  if (open.size > 0) return `no results of ${[...open].join()}`;
  for (const tool of body.tools ?? []) {
    if (tool.type !== "function" || !/^[a-zA-Z0-9_-]{1,64}$/.test(tool.function.name)) return "a tool has no name";
    if (typeof tool.function.parameters !== "object") return "a tool has no parameters";
  }
  return undefined;
}
