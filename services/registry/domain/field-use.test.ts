import { create } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import { expect, test } from "vitest";
import { describeFieldUse, removedFields } from "./field-use.ts";

const minute = 60_000;
const hour = 60 * minute;
const reader = (group: string, agoMs: number) => ({ group, lastReadMs: 0, agoMs });

test.each([
  [[], "no sampled reads"],
  [[reader("a", minute - 1)], "read by 1 consumer, last less than a minute ago by a"],
  [[reader("a", minute), reader("b", hour)], "read by 2 consumers, last 1 min ago by a"],
  [
    [reader("audit.exporter", 3.9 * hour), reader("b", 5 * hour)],
    "read by 2 consumers, last 3 h ago by audit.exporter",
  ],
  [[reader("a", 47 * hour)], "read by 1 consumer, last 47 h ago by a"],
  [[reader("a", 48 * hour)], "read by 1 consumer, last 2 days ago by a"],
])("%j: %s", (readers, text) => {
  expect(describeFieldUse({ typeName: "t.M", field: "f", readers })).toBe(text);
});

test("fields that are gone by number are told, in nested messages too, and none of a message that is gone", () => {
  const file = (fields: readonly [string, number][], nested: readonly [string, number][], others: readonly string[]) =>
    create(FileDescriptorProtoSchema, {
      package: "t",
      messageType: [
        {
          name: "M",
          field: fields.map(([name, number]) => ({ name, number })),
          nestedType: [{ name: "N", field: nested.map(([name, number]) => ({ name, number })) }],
        },
        ...others.map((name) => ({ name, field: [{ name: "f", number: 1 }] })),
      ],
    });
  const before = file(
    [
      ["a", 1],
      ["b", 2],
    ],
    [["c", 1]],
    ["Gone"],
  );
  const after = file(
    [
      ["renamed", 1],
      ["d", 3],
    ],
    [],
    [],
  );
  expect(removedFields(before, after)).toEqual([
    { typeName: "t.M", field: "b" },
    { typeName: "t.M.N", field: "c" },
  ]);
});
