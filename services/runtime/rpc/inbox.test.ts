import { Code, ConnectError } from "@connectrpc/connect";
import { expect, test } from "vitest";
import { Inbox } from "./inbox.ts";

const failure = new ConnectError("broken", Code.Unavailable);
const message = (size: number): Uint8Array => new Uint8Array(size);

function open(readAheadBytes?: number) {
  const seen = { reads: 0, left: 0 };
  const inbox = new Inbox(
    () => (seen.reads += 1),
    () => (seen.left += 1),
    readAheadBytes,
  );
  inbox.open();
  return { inbox, seen, reader: inbox[Symbol.asyncIterator]() };
}

test("it asks for more while little waits, stops when much does, and goes on when it was read", async () => {
  const { inbox, seen, reader } = open(100);
  expect(seen.reads).toBe(1);
  inbox.deliver(message(60));
  expect(seen.reads).toBe(2);
  inbox.deliver(message(60));
  expect(seen.reads).toBe(2);
  await reader.next();
  expect(seen.reads).toBe(3);
});

test("messages come before the end, and before a failure", async () => {
  for (const finish of ["end", "fail"] as const) {
    const { inbox, reader } = open();
    inbox.deliver(message(1));
    inbox.deliver(message(2));
    if (finish === "end") inbox.end();
    else inbox.fail(failure);
    expect((await reader.next()).value?.byteLength).toBe(1);
    expect((await reader.next()).value?.byteLength).toBe(2);
    if (finish === "end") expect((await reader.next()).done).toBe(true);
    else await expect(reader.next()).rejects.toBe(failure);
    expect((await reader.next()).done).toBe(true);
  }
});

test("a reader that waits gets the message, the end or the failure", async () => {
  const first = open();
  const waiting = first.reader.next();
  first.inbox.deliver(message(3));
  expect((await waiting).value?.byteLength).toBe(3);
  const end = first.reader.next();
  first.inbox.end();
  expect((await end).done).toBe(true);
  const second = open();
  const failing = second.reader.next();
  second.inbox.fail(failure);
  await expect(failing).rejects.toBe(failure);
});

test("a reader that leaves is told of once, and nothing is kept or asked for after it", async () => {
  const { inbox, seen, reader } = open();
  inbox.deliver(message(1));
  await reader.return?.();
  await reader.return?.();
  expect(seen.left).toBe(1);
  const { reads } = seen;
  inbox.deliver(message(1));
  expect(seen.reads).toBe(reads);
  expect((await reader.next()).done).toBe(true);
});
