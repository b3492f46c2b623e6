import fc from "fast-check";
import { expect, test } from "vitest";
import { isId, newId } from "../ids/id.ts";
import { newSpanContext, toTraceparent } from "../telemetry/traceparent.ts";
import { encodeToldRequest, readToldRequest, requestHeader, type ToldRequest } from "./told-request.ts";

const traceparent = toTraceparent(newSpanContext());

test.each<ToldRequest>([
  { requestId: newId("req"), traceparent, source: "203.0.113.7" },
  { requestId: newId("req"), traceparent: "", source: "2001:db8::1" },
  { requestId: newId("req"), traceparent, source: "" },
  { requestId: newId("req"), traceparent: "", source: "" },
  { requestId: newId("req"), traceparent: "", source: "a name with blanks" },
])("what is told of a request is read again: %o", (told) => {
  expect(readToldRequest(new Headers({ [requestHeader]: encodeToldRequest(told) }))).toEqual(told);
});

test("the trace context of a span in between goes before", () => {
  const told = { requestId: newId("req"), traceparent, source: "" };
  const between = toTraceparent(newSpanContext());
  const header = new Headers({ [requestHeader]: encodeToldRequest(told), traceparent: between });
  expect(readToldRequest(header)).toEqual({ ...told, traceparent: between });
});

test("whatever else comes, the request has an id, its own or a new one, and nothing is thrown", () => {
  const text = fc.oneof(
    fc.string({ unit: fc.integer({ min: 0x20, max: 0x7e }).map((code) => String.fromCharCode(code)), maxLength: 200 }),
    fc.constantFrom("", " ", "  ", "-", "- -", "req_ - ", `${newId("req")}`, `${newId("usr")} - x`),
  );
  fc.assert(
    fc.property(text, (sent) => {
      const { requestId, source } = readToldRequest(new Headers({ [requestHeader]: sent }));
      expect(isId("req", requestId)).toBe(true);
      expect(sent.endsWith(source.trimEnd())).toBe(true);
    }),
  );
});
