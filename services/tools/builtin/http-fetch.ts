import { AppError } from "../../runtime/errors/app-error.ts";
import type { EgressGuard } from "../egress/egress-guard.ts";
import type { BuiltInCall, BuiltInTool } from "./built-in-tool.ts";

/** Text beyond this is cut off, and the result says so: a model reads no more, and a result has a limit. */
const maxTextCharacters = 262_144;

/** Media types whose body is text. */
const textual = /^(?:text\/.*|application\/(?:.*\+)?(?:json|xml|javascript|yaml|x-ndjson|x-www-form-urlencoded))$/;

/**
 * Fetches a resource of the web.
 *
 * @param guardFor the guard for a call, which writes refusals to the audit log of its org
 */
export function createHttpFetch(guardFor: (call: BuiltInCall) => Promise<EgressGuard>): BuiltInTool {
  return {
    definition: {
      name: "http_fetch",
      description:
        "Fetches a resource by its https URL and returns status, content type and, if it is text, the body. Only hosts that the operator allowed can be reached; redirects are not followed.",
      inputSchema: {
        type: "object",
        properties: {
          url: { type: "string", minLength: 1, maxLength: 4096, description: "An absolute URL." },
          method: { enum: ["GET", "HEAD"], description: "GET unless said otherwise." },
        },
        required: ["url"],
        additionalProperties: false,
      },
      outputSchema: {
        type: "object",
        properties: {
          status: { type: "integer" },
          content_type: { type: "string" },
          bytes: { type: "integer", description: "Size of the body." },
          body: { type: "string", description: "The body, if it is text." },
          truncated: { type: "boolean", description: "Whether the end of the body was cut off." },
        },
        required: ["status", "content_type", "bytes", "truncated"],
        additionalProperties: false,
      },
      sideEffects: "NONE",
      timeoutMs: 15_000,
    },
    async run(input, call) {
      const { url, method } = input;
      if (typeof url !== "string") throw new TypeError("the arguments were not checked");
      const guard = await guardFor(call);
      const response = await guard.request({
        url,
        method: method === "HEAD" ? "HEAD" : "GET",
        headers: { accept: "*/*", "user-agent": "Cadre" },
        signal: call.signal,
      });
      const contentType = String(response.headers["content-type"] ?? "").slice(0, 256);
      const bytes = response.body.byteLength;
      const facts = { status: response.status, content_type: contentType, bytes };
      const [mediaType = ""] = contentType.toLowerCase().split(";", 1);
      if (bytes === 0 || !textual.test(mediaType.trim())) return { ...facts, truncated: false };
      const text = decode(response.body, contentType);
      // Cutting must not leave half of a surrogate pair.
      return {
        ...facts,
        body: text.slice(0, maxTextCharacters).toWellFormed(),
        truncated: text.length > maxTextCharacters,
      };
    },
  };
}

function decode(body: Uint8Array, contentType: string): string {
  const charset = /;\s*charset="?([^\s;"]+)/i.exec(contentType)?.[1] ?? "utf-8";
  try {
    return new TextDecoder(charset).decode(body);
  } catch (cause) {
    throw new AppError("TOOL_FAILED", "the answer is in a character set that is not known", { cause });
  }
}
