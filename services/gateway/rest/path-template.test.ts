import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { expandPath, matchPath, parsePathTemplate } from "./path-template.ts";

function match(template: string, path: string): Record<string, string> | undefined {
  const variables = matchPath(parsePathTemplate(template), path);
  return variables === undefined ? undefined : Object.fromEntries(variables);
}

test.each([
  ["/v1/sessions", "/v1/sessions", {}],
  ["/v1/sessions/{session_id}", "/v1/sessions/ses_1", { session_id: "ses_1" }],
  ["/v1/sessions/{session_id}/turns/{turn_id}", "/v1/sessions/a/turns/b", { session_id: "a", turn_id: "b" }],
  ["/v1/{session.name=sessions/*}", "/v1/sessions/a", { "session.name": "sessions/a" }],
  ["/v1/files/{path=**}", "/v1/files/a/b/c", { path: "a/b/c" }],
  ["/v1/files/{path=**}", "/v1/files", { path: "" }],
  ["/v1/files/{path=a/**}", "/v1/files/a/b", { path: "a/b" }],
  ["/v1/keys/{key_id}:rotate", "/v1/keys/k:rotate", { key_id: "k" }],
  ["/v1/*/things/{id}", "/v1/x/things/y", { id: "y" }],
  ["/v1/agents/{name}", "/v1/agents/a%2Fb%20%C3%A9", { name: "a/b é" }],
])("%s takes %s", (template, path, variables) => {
  expect(match(template, path)).toEqual(variables);
});

describe("every spelling but the exact one is another path", () => {
  test.each([
    "/v1/sessions/ses_1/",
    "/v1/sessions//ses_1",
    "//v1/sessions/ses_1",
    "/v1/./sessions/ses_1",
    "/x/../v1/sessions/ses_1",
    "/v1/sessions/.",
    "/v1/sessions/..",
    "/v1/sessions/%2e%2e",
    "/v1/sessions/",
    "/v1/Sessions/ses_1",
    "/V1/sessions/ses_1",
    "/v1/%73essions/ses_1",
    "/v1/sessions/%73es_1",
    "/v1/sessions/ses_1;a=b",
    "/v1/sessions;a=b/ses_1",
    "/v1/sessions/a%2fb",
    "/v1/sessions/a%",
    "/v1/sessions/%ff",
    "/v1/sessions/a b",
    "/v1/sessions/ses_1/turns",
    "http://127.0.0.1/v1/sessions/ses_1",
    "v1/sessions/ses_1",
    "*",
    "",
  ])("%j", (path) => {
    expect(match("/v1/sessions/{session_id}", path)).toBeUndefined();
  });
});

test("a literal before a verb is not the path without it", () => {
  expect(match("/v1/keys/{key_id}:rotate", "/v1/keys/k")).toBeUndefined();
  expect(match("/v1/keys/{key_id}", "/v1/keys/k:rotate")).toBeUndefined();
});

test.each(["", "v1", "/v1/", "/v1/{", "/v1/{a", "/v1/{a=}", "/v1/{a}/{a}", "/v1/{a={b}}", "/v1/**/x", "/v1/a b"])(
  "%j is no template",
  (template) => {
    expect(() => parsePathTemplate(template)).toThrow(TypeError);
  },
);

test("every value goes into a path and comes back", () => {
  const value = fc.string({ unit: "grapheme", minLength: 1 }).filter((text) => text !== "." && text !== "..");
  const one = parsePathTemplate("/v1/sessions/{session_id}/turns/{turn_id}");
  const many = parsePathTemplate("/v1/files/{path=**}");
  fc.assert(
    fc.property(
      value,
      value,
      fc.array(
        value.filter((text) => !text.includes("/")),
        { minLength: 1 },
      ),
      (a, b, parts) => {
        const variables = new Map([
          ["session_id", a],
          ["turn_id", b],
        ]);
        expect(matchPath(one, expandPath(one, variables))).toEqual(variables);
        const path = new Map([["path", parts.join("/")]]);
        expect(matchPath(many, expandPath(many, path))).toEqual(path);
      },
    ),
  );
});
