import { expect, test } from "vitest";
import { checkDurability, parseTrace } from "./wal-trace.ts";

// Traces made by hand, in the form that strace writes with -f -y -xx.

const hash = Buffer.alloc(32, 0xab);
const log = "/data/pg_wal/000000010000000000000001";

function hex(bytes: Buffer | string): string {
  return [...Buffer.from(bytes)].map((byte) => `\\x${byte.toString(16).padStart(2, "0")}`).join("");
}

const statement = Buffer.concat([Buffer.from("bind"), hash, Buffer.from("execute")]);
const received = `7 recvfrom(10<${hex("socket:[1]")}>, "${hex(statement)}", 8192, 0, NULL, NULL) = ${statement.length}`;
const written = (pid = 7, data = hash): string =>
  `${pid} pwrite64(28<${hex(log)}>, "${hex(Buffer.concat([Buffer.from("head"), data, Buffer.from("tail")]))}", 40, 8192) = 40`;
const synced = (pid = 7, file = log): string => `${pid} fdatasync(28<${hex(file)}>) = 0`;
const answered = `7 sendto(10<${hex("socket:[1]")}>, "${hex(Buffer.from([0x43, 0, 0, 0, 4, 0x5a, 0, 0, 0, 5, 0x49]))}", 11, 0, NULL, 0) = 11`;

function verdict(...lines: string[]) {
  return checkDurability(parseTrace(`${lines.join("\n")}\n`), [hash]).get(hash.toString("hex"));
}

test.each([
  ["the backend itself", [received, written(), synced(), answered]],
  ["another process", [received, written(8), synced(9), answered]],
  ["halves of a record on two pages", [received, written(7, hash.subarray(0, 20)), synced(), answered]],
  [
    "calls that were interrupted",
    [
      received,
      written(),
      `7 fdatasync(28<${hex(log)}> <unfinished ...>`,
      "8 <... recvfrom resumed>, 0x1, 8192, 0, NULL, NULL) = -1 EAGAIN (Resource temporarily unavailable)",
      "7 <... fdatasync resumed>) = 0",
      answered,
    ],
  ],
])("what was written and synchronised by %s is durable", (_, lines) => {
  expect(verdict(...lines)).toEqual({ type: "durable" });
});

test.each([
  ["not at all", [received, answered], /before it was written/],
  ["after the answer", [received, answered, written(), synced()], /before it was written/],
  ["without a sync", [received, written(), answered], /before the log was synchronised/],
  ["with a sync that was over before", [received, synced(), written(), answered], /before the log was synchronised/],
  ["with a sync after the answer", [received, written(), answered, synced()], /before the log was synchronised/],
  [
    "with a sync of another file",
    [received, written(), synced(7, log.replace(/1$/, "2")), answered],
    /before the log was synchronised/,
  ],
  [
    "with a sync that failed",
    [received, written(), synced().replace("= 0", "= -1 EIO (Input/output error)"), answered],
    /before the log was synchronised/,
  ],
  [
    "with a sync that began before",
    [received, `8 fdatasync(28<${hex(log)}> <unfinished ...>`, written(), "8 <... fdatasync resumed>) = 0", answered],
    /before the log was synchronised/,
  ],
])("what was written %s is not durable", (_, lines, why) => {
  expect(verdict(...lines)).toEqual({ type: "not durable", why: expect.stringMatching(why) });
});

test("a later statement that names an entry, as the one before its own, is not taken for its own", () => {
  const other = `3 recvfrom(11<${hex("socket:[2]")}>, "${hex("select 1")}", 8192, 0, NULL, NULL) = 8`;
  const later = received.replace(/^7/, "3");
  expect(verdict(other, received, written(), synced(), answered, later)).toEqual({ type: "durable" });
  expect(verdict(other, received, answered, later, written(), synced())).toMatchObject({ type: "not durable" });
});

test("an entry that the trace does not show proves nothing", () => {
  expect(verdict(written(), synced(), answered)).toMatchObject({ type: "not seen" });
  expect(verdict(received, written(), synced())).toMatchObject({ type: "not seen" });
});
