import { expect, test } from "vitest";
import { mapMessages, observeStream, type StreamEnd } from "./message-stream.ts";

async function* count(to: number, left: () => void = () => {}) {
  try {
    for (let index = 1; index <= to; index++) yield index;
  } finally {
    left();
  }
}

async function* failing() {
  yield 1;
  throw new Error("source");
}

async function collect<T>(source: AsyncIterable<T>): Promise<{ read: T[]; thrown: unknown }> {
  const read: T[] = [];
  try {
    for await (const message of source) read.push(message);
    return { read, thrown: undefined };
  } catch (thrown) {
    return { read, thrown };
  }
}

test("each message is changed; what the change throws, the reader is told", async () => {
  expect((await collect(mapMessages(count(3), (index) => index * 2))).read).toEqual([2, 4, 6]);
  const { read, thrown } = await collect(
    mapMessages(count(3), (index) => {
      if (index === 2) throw new Error("second");
      return index;
    }),
  );
  expect([read, (thrown as Error).message]).toEqual([[1], "second"]);
});

test("a reader that leaves ends the source, through everything that lies between", async () => {
  let left = false;
  const ends: StreamEnd[] = [];
  const source = mapMessages(
    count(3, () => (left = true)),
    (index) => index,
  );
  for await (const _ of observeStream(source, { ended: (end) => ends.push(end) })) break;
  expect([left, ends]).toEqual([true, [undefined]]);
});

test("whoever looks on is told once how it ended, also of one that was left before its first message", async () => {
  const endsOf = async (read: (stream: AsyncIterable<number>) => Promise<unknown>, source: AsyncIterable<number>) => {
    const ends: StreamEnd[] = [];
    await read(observeStream(source, { ended: (end) => ends.push(end) }));
    return ends;
  };
  expect(await endsOf(collect, count(2))).toEqual([undefined]);
  expect(await endsOf(collect, failing())).toMatchObject([{ thrown: { message: "source" } }]);
  const leave = async (stream: AsyncIterable<number>) => stream[Symbol.asyncIterator]().return?.();
  expect(await endsOf(leave, count(2))).toEqual([undefined]);
  const readPastTheEnd = async (stream: AsyncIterable<number>) => {
    const iterator = stream[Symbol.asyncIterator]();
    for (let read = 0; read < 4; read++) await iterator.next();
    await iterator.return?.();
  };
  expect(await endsOf(readPastTheEnd, count(2))).toEqual([undefined]);
});

test.each([
  ["at once", (thrown: unknown) => new Error(`told ${(thrown as Error).message}`)],
  ["later", async (thrown: unknown) => new Error(`told ${(thrown as Error).message}`)],
])("a failure is told in another form, %s", async (_, translate) => {
  const { read, thrown } = await collect(observeStream(failing(), { translate }));
  expect([read, (thrown as Error).message]).toEqual([[1], "told source"]);
});
