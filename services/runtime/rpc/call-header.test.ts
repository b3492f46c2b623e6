import fc from "fast-check";
import { expect, test } from "vitest";
import { CallHeader } from "./call-header.ts";

// What is asserted of most: it does what the platform's own `Headers` does.

type Change = readonly ["set" | "append" | "delete", name: string, value: string];

const name = fc.oneof(fc.constantFrom("a", "A", "x-b", "X-B", "data-bin"), fc.string({ maxLength: 8, unit: "binary" }));
const value = fc.oneof(
  fc.constantFrom("", " ", "1", "\t1 ", "a b", "1, 2", "\u00eb", "\r\nx", "a\rb", "\0"),
  fc.string({ maxLength: 12, unit: "binary" }),
);
const change = fc.tuple(fc.constantFrom("set", "append", "delete"), name, value) as fc.Arbitrary<Change>;

function apply(headers: Headers, [kind, name, value]: Change): string {
  try {
    if (kind === "delete") headers.delete(name);
    else headers[kind](name, value);
    return "done";
  } catch (thrown) {
    return thrown instanceof TypeError ? "TypeError" : String(thrown);
  }
}

test("whatever is set, added and deleted, it holds and refuses what the platform does", () => {
  fc.assert(
    fc.property(fc.array(change, { maxLength: 8 }), (changes) => {
      const [ours, theirs] = [new CallHeader(), new Headers()];
      for (const one of changes) {
        fc.pre(one[1].toLowerCase() !== "set-cookie");
        expect(apply(ours, one)).toBe(apply(theirs, one));
      }
      expect(sorted(ours)).toEqual([...theirs]);
      expect(sorted(CallHeader.from(theirs))).toEqual([...new Headers(theirs)]);
      expect([...new Headers(ours)]).toEqual([...new Headers(theirs)]);
      for (const [, name] of changes) {
        if (/^[\w-]+$/.test(name))
          expect([ours.get(name), ours.has(name)]).toEqual([theirs.get(name), theirs.has(name)]);
      }
    }),
    { numRuns: 1_000 },
  );
});

test.each([
  ["nothing", undefined],
  ["an object", { "X-A": "1", "x-b": "2" }],
  [
    "pairs",
    [
      ["x-a", "1"],
      ["X-A", "2"],
    ] as [string, string][],
  ],
  ["the platform's own", new Headers({ "x-a": "1" })],
])("%s that a caller gives is taken as the platform takes it", (_, init) => {
  expect(sorted(CallHeader.from(init))).toEqual([...new Headers(init)]);
});

test("of its source it reads one header at a time until it is changed, and does not change it", () => {
  const source = new Map([
    ["x-a", "1"],
    ["x-b", "2"],
  ]);
  let wholes = 0;
  const header = new CallHeader({
    get: (name) => source.get(name) ?? null,
    entries: () => {
      wholes += 1;
      return source.entries();
    },
  });
  expect([header.get("X-A"), header.get("x-c"), header.isEmpty, wholes]).toEqual(["1", null, false, 0]);
  header.set("x-a", "3");
  header.delete("x-b");
  expect([...header]).toEqual([["x-a", "3"]]);
  expect([...source]).toEqual([
    ["x-a", "1"],
    ["x-b", "2"],
  ]);
  expect(wholes).toBe(1);
});

test("what crosses is a copy, without what belongs to the transport", () => {
  const header = CallHeader.from({ "x-a": "1", "grpc-timeout": "1S", te: "trailers" });
  const crossed = CallHeader.crossed(header);
  header.set("x-a", "2");
  expect([...crossed]).toEqual([["x-a", "1"]]);
  expect(CallHeader.crossed(new CallHeader()).isEmpty).toBe(true);
});

function sorted(headers: Headers): [string, string][] {
  return [...headers].sort(([a], [b]) => (a < b ? -1 : 1));
}
