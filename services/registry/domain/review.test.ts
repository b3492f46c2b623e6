import { expect, test } from "vitest";
import type { ComparedContract } from "./contract-set.ts";
import { assertReviewRoom, movedSubjects } from "./review.ts";

const finding = { rule: "R", file: "a.proto", typeName: "M", member: "field 1 (f)", detail: "d", version: 1 };
const contract = (subject: string, rest: Partial<ComparedContract> = {}): ComparedContract => ({
  path: subject,
  subject,
  state: "breaks",
  base: 1,
  version: 2,
  schemaId: 0,
  findings: [finding],
  removed: [],
  ...rest,
});
const kept = [contract("a"), contract("b", { state: "follows", findings: [] })];

test.each<readonly [string, readonly ComparedContract[], readonly string[]]>([
  ["nothing", kept, []],
  ["the order", kept.toReversed(), []],
  ["ids", kept.map((one) => ({ ...one, schemaId: 9 })), []],
  [
    "readers",
    [contract("a", { findings: [{ ...finding, use: { typeName: "M", field: "f", readers: [] } }] }), ...kept.slice(1)],
    [],
  ],
  ["the version before", [contract("a", { base: 2 }), ...kept.slice(1)], ["a"]],
  ["what breaks", [contract("a", { findings: [{ ...finding, detail: "e" }] }), ...kept.slice(1)], ["a"]],
  [
    "the version that it is found against",
    [contract("a", { findings: [{ ...finding, version: 2 }] }), ...kept.slice(1)],
    ["a"],
  ],
  ["that it is registered", kept.slice(1), ["a"]],
  ["one more", [...kept, contract("c")], ["c"]],
])("a set in which %s changed has moved by that", (_, now, moved) => {
  expect(movedSubjects(kept, now)).toEqual(moved);
});

const MiB = 1024 * 1024;

test.each([
  [{ count: 19, bytes: 15 * MiB }, { bytes: MiB, comparedBytes: 2 * MiB }, undefined],
  [{ count: 20, bytes: 0 }, { bytes: 1, comparedBytes: 1 }, "20 reviews are open"],
  [{ count: 0, bytes: 15 * MiB }, { bytes: MiB + 1, comparedBytes: 1 }, "the open reviews weigh 16 MiB"],
  [{ count: 0, bytes: 0 }, { bytes: 3 * MiB, comparedBytes: 2 * MiB + 1 }, "push it in parts"],
])("with %j open, one more of %j: %s", (open, added, refused) => {
  const adding = () => assertReviewRoom(open, added);
  if (refused === undefined) expect(adding).not.toThrow();
  else
    expect(adding).toThrow(
      expect.objectContaining({ reason: "LIMIT_EXCEEDED", message: expect.stringContaining(refused) }),
    );
});
