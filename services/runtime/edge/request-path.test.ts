import fc from "fast-check";
import { expect, test } from "vitest";
import { parsePath } from "./request-path.ts";

test.each([
  ["/", []],
  ["/v1/sessions", ["v1", "sessions"]],
  ["/v1/sessions/ses_1?after_seq=2", ["v1", "sessions", "ses_1"]],
  ["/v1/limits/runs.concurrent", ["v1", "limits", "runs.concurrent"]],
  ["/v1/a%20b", ["v1", "a b"]],
  ["/v1/t%C3%A9st", ["v1", "tést"]],
  ["/v1/a:b@c$d&e+f,g=h", ["v1", "a:b@c$d&e+f,g=h"]],
])("%s is taken apart", (target, segments) => {
  expect(parsePath(target)?.segments).toEqual(segments);
});

test.each([
  "",
  "v1",
  "*",
  "http://a/v1",
  "//v1",
  "/v1//a",
  "/v1/",
  "/v1/.",
  "/v1/../a",
  "/v1/%2e%2e/a",
  "/v1/%2E",
  "/v1/a;b=c",
  "/v1/a%2Fb",
  "/v1/a%2fb",
  "/v1/%73essions",
  "/v1/a%5cb",
  "/v1/a\\b",
  "/v1/a%00",
  "/v1/a%0d%0a",
  "/v1/%ff",
  "/v1/%",
  "/v1/%c3%a9",
  "/v1/a b",
  "/v1/é",
])("%j is not found", (target) => {
  expect(parsePath(target)).toBeUndefined();
});

test("two paths that are taken have the same segments only if they are the same", () => {
  const paths = fc.stringMatching(/^\/[a-cA-C%.;\/2eE]{0,12}$/);
  fc.assert(
    fc.property(paths, paths, (left, right) => {
      const [a, b] = [parsePath(left), parsePath(right)];
      if (a !== undefined && b !== undefined && JSON.stringify(a.segments) === JSON.stringify(b.segments)) {
        expect(left).toBe(right);
      }
    }),
  );
});

test("the query is taken as it came", () => {
  expect(parsePath("/v1/a?b=c%26&d=e")?.query.get("b")).toBe("c&");
});
