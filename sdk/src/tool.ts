import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { type CallToolResponse, type Tool, ToolService } from "@cadre/gen/cadre/tools/v1/tool_pb";
import { type Caller, type CallOptions, required } from "./caller.ts";
import type { DefinedTool, ToolDefinitionInit } from "./define-tool.ts";
import { CadreError, reasonName } from "./error.ts";
import { valueOf } from "./json.ts";
import { createListing, type Listing, type PageOptions } from "./page.ts";
import { type ServeOptions, serveTools, type ToolWorker } from "./tool-worker.ts";

/**
 * A call of a tool. Iterate over what it prints, then take its result; or take
 * the result only.
 */
export interface ToolCall extends AsyncIterable<string> {
  /**
   * Resolves to the result when the call has ended. Reads what is left of the
   * output.
   *
   * @throws CadreError with the reason why the tool failed
   */
  result(): Promise<JsonValue>;
}

/** The tools of the org. */
export interface Tools {
  /**
   * Registers a tool that workers will serve, or a new definition of one. The
   * same definition again changes nothing. `serve` does it by itself.
   *
   * @throws CadreError `INVALID_SCHEMA`, `INVALID_ARGUMENT` with `violations`
   */
  register(tool: DefinedTool | ToolDefinitionInit, options?: CallOptions): Promise<Tool>;
  /** Returns a tool by its id. @throws CadreError `TOOL_NOT_FOUND` */
  get(toolId: string, options?: CallOptions): Promise<Tool>;
  /** Returns the tool of a name, or `undefined`. */
  find(name: string, options?: { readonly signal?: AbortSignal }): Promise<Tool | undefined>;
  /** Lists the org's tools and the built-in ones, by name. */
  list(options?: PageOptions): Listing<Tool>;
  /**
   * Calls a tool once; never tried again. The call starts when its output or
   * its result is asked for, and ends early when the signal aborts or the loop
   * over its output is left.
   *
   * @example
   * ```ts
   * const calculator = await cadre.tools.find("calculator");
   * if (calculator) console.log(await cadre.tools.call(calculator.toolId, { expression: "6 * 7" }).result());
   * ```
   */
  call(toolId: string, args: JsonObject, options?: { readonly signal?: AbortSignal }): ToolCall;
  /**
   * Serves tools from this process, which only needs to reach the server.
   * Resolves when the server has registered the worker; it then works until it
   * is closed, and connects again by itself. The credential needs the scope
   * `tools.serve`, and its key must name the tools.
   *
   * @throws CadreError when the server refuses the worker
   *
   * @example
   * ```ts
   * const worker = await cadre.tools.serve([orderStatus], { concurrency: 4 });
   * process.once("SIGTERM", () => void worker.close());
   * await worker.closed;
   * ```
   */
  serve(tools: readonly DefinedTool[], options?: ServeOptions): Promise<ToolWorker>;
}

/** Creates the tools of a client. */
export function createTools(caller: Caller): Tools {
  const { method } = ToolService;

  function list(options: PageOptions = {}): Listing<Tool> {
    return createListing(options, async (pageToken) => {
      const request = { pageSize: options.pageSize ?? 0, pageToken };
      const { tools, nextPageToken } = await caller.unary(method.listTools, request, { signal: options.signal });
      return { items: tools, nextPageToken };
    });
  }

  return {
    async register(tool, options) {
      const definition = "definition" in tool ? tool.definition : tool;
      const response = await caller.unary(method.registerTool, { definition }, options);
      return required(response.tool, "the tool");
    },
    async get(toolId, options) {
      const { tool } = await caller.unary(method.getTool, { toolId }, options);
      return required(tool, "the tool");
    },
    async find(name, options) {
      for await (const tool of list({ pageSize: 200, signal: options?.signal })) {
        if (tool.definition?.name === name) return tool;
      }
      return undefined;
    },
    list,
    call: (toolId, args, options) => callTool(caller, toolId, args, options?.signal),
    serve: (tools, options) => serveTools(caller, tools, options),
  };
}

function callTool(caller: Caller, toolId: string, args: JsonObject, signal: AbortSignal | undefined): ToolCall {
  const result = Promise.withResolvers<JsonValue>();
  // Who only reads the output is told of a failure by the loop.
  result.promise.catch(() => undefined);

  async function* run(): AsyncGenerator<string, void, undefined> {
    const connection = new AbortController();
    const onAbort = () => connection.abort(signal?.reason);
    signal?.addEventListener("abort", onAbort, { once: true });
    if (signal?.aborted === true) onAbort();
    try {
      const request = { toolId, arguments: args };
      const parts = await caller.stream(ToolService.method.callTool, request, connection.signal);
      for await (const { part } of parts as AsyncIterable<CallToolResponse>) {
        switch (part.case) {
          case "output":
            yield part.value;
            break;
          case "result":
            return result.resolve(valueOf(part.value));
          case "error":
            throw new CadreError(reasonName(part.value.reason), part.value.message);
          default:
            break;
        }
      }
      throw new CadreError("UNAVAILABLE", "the call's answer ended before its result");
    } catch (thrown) {
      result.reject(thrown);
      throw thrown;
    } finally {
      result.reject(new CadreError("CANCELLED", "the call was left before its result"));
      signal?.removeEventListener("abort", onAbort);
      connection.abort();
    }
  }

  const output = run();
  return {
    [Symbol.asyncIterator]: () => output,
    async result() {
      for await (const _ of output);
      return result.promise;
    },
  };
}
