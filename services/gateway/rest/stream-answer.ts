import { type DescField, type DescMessage, type JsonValue, type Message, toJson } from "@bufbuild/protobuf";
import { reflect } from "@bufbuild/protobuf/reflect";
import type { ErrorBody } from "../../runtime/edge/error-body.ts";
import { keepaliveFrame, toEventFrame, toRetryFrame } from "./event-frame.ts";
import type { EventFields, Route } from "./route.ts";

/** How the messages of a stream are written to a plain HTTP body. */
export interface StreamFormat {
  readonly contentType: string;
  /** What comes first; empty for nothing. */
  readonly start: string;
  /** What shows that a quiet stream lives; empty where the format has no such thing. */
  readonly keepalive: string;
  /** One message. */
  message(message: Message): string;
  /** Why the stream ends early; the last thing written. */
  error(body: ErrorBody): string;
}

/** How long readers of an event stream wait before they connect again. */
const reconnectMs = 1_000;

/**
 * Chooses the format of a stream. Numbered events are an event stream, unless
 * the caller asks for nothing but lines; other messages are lines of JSON,
 * unless the caller asks for an event stream.
 *
 * @param accept the request's `Accept` header; empty for none
 */
export function streamFormat(route: Route, accept: string): StreamFormat {
  const { output } = route.method;
  const wantsEvents = accept.includes("text/event-stream");
  const wantsLines = accept.includes("application/x-ndjson");
  if (route.events === undefined) return wantsEvents ? eventStream(output) : lines(output);
  return wantsLines && !wantsEvents ? lines(output) : numberedEventStream(output, route.events);
}

/** Protobuf JSON as REST writes it: proto names, and every field that has no presence of its own. */
export function toRestJson(schema: DescMessage, message: Message): JsonValue {
  return toJson(schema, message, { useProtoFieldName: true, alwaysEmitImplicit: true });
}

function numberedEventStream(output: DescMessage, fields: EventFields): StreamFormat {
  const eventSchema = fields.event.message as DescMessage;
  return {
    ...eventStream(output),
    message(message) {
      const event = valueOf(message, fields.event);
      if (event === undefined) return keepaliveFrame;
      return toEventFrame({
        id: String(valueOf(event as Message, fields.seq)),
        ...typeOf(eventSchema, event as Message, fields),
        data: JSON.stringify(toRestJson(eventSchema, event as Message)),
      });
    },
  };
}

/** The dotted type of an event; none for an event of a kind that this build does not know. */
function typeOf(schema: DescMessage, event: Message, fields: EventFields): { event?: string } {
  const set = reflect(schema, event).oneofCase(fields.type);
  return set === undefined ? {} : { event: set.name.replaceAll("_", ".") };
}

function eventStream(output: DescMessage): StreamFormat {
  return {
    contentType: "text/event-stream; charset=utf-8",
    start: toRetryFrame(reconnectMs),
    keepalive: keepaliveFrame,
    message: (message) => toEventFrame({ data: JSON.stringify(toRestJson(output, message)) }),
    error: (body) => toEventFrame({ event: "error", data: JSON.stringify(body) }),
  };
}

function lines(output: DescMessage): StreamFormat {
  return {
    contentType: "application/x-ndjson; charset=utf-8",
    start: "",
    keepalive: "",
    message: (message) => `${JSON.stringify(toRestJson(output, message))}\n`,
    error: (body) => `${JSON.stringify(body)}\n`,
  };
}

function valueOf(message: Message, field: DescField): unknown {
  return (message as unknown as Readonly<Record<string, unknown>>)[field.localName];
}
