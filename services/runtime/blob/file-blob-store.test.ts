import { createHash } from "node:crypto";
import { mkdtemp, readdir, readFile, rm, stat, truncate, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { AppError } from "../errors/app-error.ts";
import type { BlobDigest, BlobStore } from "./blob-store.ts";
import { createFileBlobStore } from "./file-blob-store.ts";

let root: string;
let store: BlobStore;
const maxBytes = 1_000_000;

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "cadre blob "));
  store = await createFileBlobStore(root);
});
afterEach(() => rm(root, { recursive: true, force: true }));

function digestOf(bytes: Uint8Array): BlobDigest {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}

async function read(digest: BlobDigest): Promise<Buffer | undefined> {
  const blob = await store.get(digest);
  if (blob === undefined) return undefined;
  const chunks: Uint8Array[] = [];
  for await (const chunk of blob.content) chunks.push(chunk);
  return Buffer.concat(chunks);
}

function pathOf(digest: BlobDigest): string {
  return join(root, "sha256", digest.slice(7));
}

async function reasonOf(call: Promise<unknown>): Promise<string> {
  const error: unknown = await call.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  return error instanceof AppError ? error.reason : String(error);
}

test("gives back whatever was put, in whatever pieces", async () => {
  const pieces = fc.array(fc.uint8Array({ maxLength: 70_000, size: "max" }), { maxLength: 4 });
  await fc.assert(
    fc.asyncProperty(pieces, async (chunks) => {
      const whole = Buffer.concat(chunks);
      const info = await store.put(chunks, { maxBytes });
      expect(info).toEqual({ digest: digestOf(whole), sizeBytes: whole.length });
      expect((await read(info.digest))?.equals(whole)).toBe(true);
    }),
    { numRuns: 30 },
  );
});

test("keeps equal bytes once, for the process's user only", async () => {
  const { digest } = await store.put([Buffer.from("same")], { maxBytes });
  await store.put([Buffer.from("sa"), Buffer.from("me")], { maxBytes });
  expect(await readdir(join(root, "sha256"))).toHaveLength(1);
  expect((await stat(pathOf(digest))).mode & 0o777).toBe(0o600);
  expect(await readdir(join(root, "upload"))).toEqual([]);
});

test("knows what it has, and forgets what is deleted", async () => {
  const { digest } = await store.put([Buffer.from("a")], { maxBytes });
  expect(await store.has(digest)).toBe(true);
  await store.delete(digest);
  await store.delete(digest);
  expect(await store.has(digest)).toBe(false);
  expect(await store.get(digest)).toBeUndefined();
});

describe("refuses, and keeps nothing of", () => {
  test("more than the limit", async () => {
    const chunks = [Buffer.alloc(600), Buffer.alloc(401)];
    expect(await reasonOf(store.put(chunks, { maxBytes: 1_000 }))).toBe("MESSAGE_TOO_LARGE");
    expect(await readdir(join(root, "upload"))).toEqual([]);
    expect((await store.put([Buffer.alloc(1_000)], { maxBytes: 1_000 })).sizeBytes).toBe(1_000);
  });

  test("bytes with another digest than expected", async () => {
    const expected = digestOf(Buffer.from("b"));
    expect(await reasonOf(store.put([Buffer.from("a")], { maxBytes, expected }))).toBe("INVALID_ARGUMENT");
    expect(await readdir(join(root, "sha256"))).toEqual([]);
  });

  test("a stream that breaks", async () => {
    async function* broken(): AsyncGenerator<Uint8Array> {
      yield Buffer.from("a");
      throw new Error("cut");
    }
    expect(await reasonOf(store.put(broken(), { maxBytes }))).toBe("Error: cut");
    expect(await readdir(join(root, "upload"))).toEqual([]);
  });

  test("a digest that would leave the directory", async () => {
    await expect(store.get("sha256:../../../../etc/passwd")).rejects.toThrow(TypeError);
    await expect(store.delete("sha256:..")).rejects.toThrow(TypeError);
  });
});

describe("damage is found before the end is given out", () => {
  test("any flipped bit", async () => {
    const bytes = Buffer.from(Array.from({ length: 200_000 }, (_, index) => (index * 31) & 0xff));
    await fc.assert(
      fc.asyncProperty(fc.nat(bytes.length * 8 - 1), async (bit) => {
        const { digest } = await store.put([bytes], { maxBytes });
        const damaged = await readFile(pathOf(digest));
        damaged[bit >> 3] = (damaged[bit >> 3] ?? 0) ^ (1 << (bit & 7));
        await writeFile(pathOf(digest), damaged);
        expect(await reasonOf(read(digest))).toBe("DATA_LOSS");
      }),
      { numRuns: 20 },
    );
  });

  test.each([0, 1, 65_536, 199_999])("a file cut off at %i bytes", async (length) => {
    const { digest } = await store.put([Buffer.alloc(200_000, 7)], { maxBytes });
    await truncate(pathOf(digest), length);
    expect(await reasonOf(read(digest))).toBe("DATA_LOSS");
  });

  test("and is healed by putting the bytes again", async () => {
    const { digest } = await store.put([Buffer.from("a")], { maxBytes });
    await writeFile(pathOf(digest), "b");
    await store.put([Buffer.from("a")], { maxBytes });
    expect(String(await read(digest))).toBe("a");
  });
});

test("clears away what killed uploads left, but no upload under way", async () => {
  await writeFile(join(root, "upload", "old"), "x");
  await writeFile(join(root, "upload", "new"), "x");
  const dayBeforeYesterday = new Date(Date.now() - 48 * 3_600_000);
  await utimes(join(root, "upload", "old"), dayBeforeYesterday, dayBeforeYesterday);
  await createFileBlobStore(root);
  expect(await readdir(join(root, "upload"))).toEqual(["new"]);
});
