import fc from "fast-check";
import { expect, test } from "vitest";
import { BoundedMap } from "./bounded-map.ts";

test("holds what was read or written last, whatever is done with it", () => {
  const key = fc.integer({ min: 0, max: 12 });
  const action = fc.oneof(
    fc.record({ what: fc.constant("set" as const), key }),
    fc.record({ what: fc.constant("get" as const), key }),
    fc.record({ what: fc.constant("delete" as const), key }),
    fc.record({ what: fc.constant("clear" as const), key }),
    fc.record({ what: fc.constant("deleteWhere" as const), key }),
  );
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 8 }), fc.array(action, { maxLength: 200 }), (maxEntries, actions) => {
      const map = new BoundedMap<number, string>(maxEntries);
      // The oldest first.
      let held: number[] = [];
      for (const { what, key } of actions) {
        const rest = held.filter((each) => each !== key);
        switch (what) {
          case "set":
            map.set(key, `${key}`);
            held = [...rest, key].slice(-maxEntries);
            break;
          case "get":
            expect(map.get(key)).toBe(held.includes(key) ? `${key}` : undefined);
            if (held.includes(key)) held = [...rest, key];
            break;
          case "delete":
            map.delete(key);
            held = rest;
            break;
          case "clear":
            map.clear();
            held = [];
            break;
          case "deleteWhere":
            map.deleteWhere((_value, each) => each < key);
            held = held.filter((each) => each >= key);
            break;
        }
        expect(map.size).toBe(held.length);
      }
      for (const each of held) expect(map.get(each)).toBe(`${each}`);
    }),
    { numRuns: 1_000 },
  );
});
