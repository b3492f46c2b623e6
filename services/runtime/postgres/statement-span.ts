import { context, SpanKind, SpanStatusCode, type Tracer, trace } from "@opentelemetry/api";
import pg from "pg";

const names = new Map<string, { readonly name: string; readonly operation: string; readonly table: string }>();
const maxNames = 2_000;

/**
 * A span's name for a statement: its first word and its first table, for
 * example `select session`. Never a value: those are parameters.
 */
export function describeStatement(text: string): { name: string; operation: string; table: string } {
  const known = names.get(text);
  if (known !== undefined) return known;
  const operation = /^\s*(?:with\b[\s\S]*?\)\s*)?([a-z]+)/i.exec(text)?.[1]?.toLowerCase() ?? "statement";
  const table = /\b(?:from|into|update|table)\s+(?:only\s+)?("?[a-z_][\w$]*"?(?:\."?[a-z_][\w$]*"?)?)/i
    .exec(text.slice(0, 2_000))?.[1]
    ?.replaceAll('"', "");
  const called = /^\s*(?:select|call)\s+(?:\*\s+from\s+)?("?[a-z_][\w$.]*"?)\s*\(/i
    .exec(text)?.[1]
    ?.replaceAll('"', "");
  const object = table ?? called ?? "";
  const described = { name: object === "" ? operation : `${operation} ${object}`, operation, table: object };
  // Texts come from the program; a bound all the same, for those that are built.
  if (names.size < maxNames) names.set(text, described);
  return described;
}

/**
 * Runs a statement inside a client span, if the caller is being traced. Costs a
 * look at the active span otherwise.
 */
export async function withStatementSpan<T>(tracer: Tracer, service: string, text: string, run: () => Promise<T>) {
  if (trace.getSpan(context.active())?.isRecording() !== true) return run();
  const { name, operation, table } = describeStatement(text);
  const span = tracer.startSpan(name, {
    kind: SpanKind.CLIENT,
    attributes: {
      "db.system": "postgresql",
      "db.namespace": service,
      "db.operation.name": operation,
      ...(table === "" ? {} : { "db.collection.name": table }),
    },
  });
  try {
    return await run();
  } catch (error) {
    // The message may hold values (a constraint names the row): the code is enough.
    const code = error instanceof pg.DatabaseError ? error.code : (error as NodeJS.ErrnoException).code;
    span.setStatus({ code: SpanStatusCode.ERROR, message: code });
    if (code !== undefined) span.setAttribute("db.response.status_code", code);
    throw error;
  } finally {
    span.end();
  }
}
