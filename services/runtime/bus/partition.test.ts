import { expect, test } from "vitest";
import { murmur2, partitionOf } from "./partition.ts";

// The vectors of Kafka's own test (clients/src/test/java/org/apache/kafka/common/utils/UtilsTest.java).
test.each([
  ["21", -973932308],
  ["foobar", -790332482],
  ["a-little-bit-long-string", -985981536],
  ["a-little-bit-longer-string", -1486304829],
  ["lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971],
  ["abc", 479470107],
])("hashes %s as Kafka does", (text, hash) => {
  expect(murmur2(Buffer.from(text))).toBe(hash);
});

test("spreads keys over all partitions, each key to one", () => {
  const keys = Array.from({ length: 1_000 }, (_, index) => `org_a:ses_${index}`);
  expect(new Set(keys.map((key) => partitionOf(key, 12)))).toEqual(new Set(Array.from({ length: 12 }, (_, i) => i)));
  for (const key of keys) expect(partitionOf(key, 12)).toBe(partitionOf(key, 12));
});
