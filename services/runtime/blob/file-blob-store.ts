import { createHash, randomBytes } from "node:crypto";
import { type FileHandle, mkdir, open, readdir, rename, rm, stat } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { AppError } from "../errors/app-error.ts";
import {
  type Blob,
  type BlobDigest,
  type BlobInfo,
  type BlobStore,
  isBlobDigest,
  type PutBlobOptions,
} from "./blob-store.ts";

const chunkBytes = 64 * 1024;
/** An upload that is older was left by a process that was killed. */
const abandonedAfterMs = 24 * 3_600_000;

/**
 * Keeps blobs as files `<root>/sha256/<64 digits>`, readable by the process's
 * user only. A file appears under its name whole: it is written
 * beside, synced, renamed, and then its directory is synced.
 *
 * @param root made if missing; removes what uploads left in it that were killed more than a day ago
 */
export async function createFileBlobStore(root: string): Promise<BlobStore> {
  const directory = resolve(root);
  const uploads = join(directory, "upload");
  await makeDirectory(join(directory, "sha256"));
  await makeDirectory(uploads);
  await removeAbandoned(uploads);
  return new FileBlobStore(directory, uploads);
}

class FileBlobStore implements BlobStore {
  readonly #root: string;
  readonly #uploads: string;

  constructor(root: string, uploads: string) {
    this.#root = root;
    this.#uploads = uploads;
  }

  async put(content: AsyncIterable<Uint8Array> | Iterable<Uint8Array>, options: PutBlobOptions): Promise<BlobInfo> {
    if (options.expected !== undefined) assertDigest(options.expected);
    const upload = join(this.#uploads, randomBytes(16).toString("hex"));
    try {
      const info = await write(upload, content, options.maxBytes);
      if (options.expected !== undefined && info.digest !== options.expected) {
        throw new AppError("INVALID_ARGUMENT", "the bytes do not have the expected digest");
      }
      const path = this.#path(info.digest);
      // Replaces an older file of the same digest: the same bytes, or damaged ones.
      await rename(upload, path);
      await syncDirectory(dirname(path));
      return info;
    } catch (error) {
      await rm(upload, { force: true });
      throw isDiskFull(error) ? new AppError("UNAVAILABLE", "the disk for blobs is full", { cause: error }) : error;
    }
  }

  async get(digest: BlobDigest): Promise<Blob | undefined> {
    assertDigest(digest);
    try {
      const path = this.#path(digest);
      const { size } = await stat(path);
      return { digest, sizeBytes: size, content: { [Symbol.asyncIterator]: () => readVerified(path, digest) } };
    } catch (error) {
      if (isMissing(error)) return undefined;
      throw error;
    }
  }

  async has(digest: BlobDigest): Promise<boolean> {
    assertDigest(digest);
    try {
      await stat(this.#path(digest));
      return true;
    } catch (error) {
      if (isMissing(error)) return false;
      throw error;
    }
  }

  async delete(digest: BlobDigest): Promise<void> {
    assertDigest(digest);
    const path = this.#path(digest);
    try {
      await rm(path);
    } catch (error) {
      if (isMissing(error)) return;
      throw error;
    }
    await syncDirectory(dirname(path));
  }

  #path(digest: BlobDigest): string {
    return join(this.#root, "sha256", digest.slice("sha256:".length));
  }
}

/** Reads a file one chunk behind, so that the last one waits for the digest. */
async function* readVerified(path: string, digest: BlobDigest): AsyncGenerator<Uint8Array> {
  let file: FileHandle;
  try {
    file = await open(path, "r");
  } catch (error) {
    throw isMissing(error) ? new AppError("DATA_LOSS", `the blob ${digest} was removed`, { cause: error }) : error;
  }
  try {
    const hash = createHash("sha256");
    let held: Uint8Array | undefined;
    for (;;) {
      const { bytesRead, buffer } = await file.read(Buffer.allocUnsafe(chunkBytes), 0, chunkBytes);
      if (bytesRead === 0) break;
      if (held !== undefined) yield held;
      held = buffer.subarray(0, bytesRead);
      hash.update(held);
    }
    if (`sha256:${hash.digest("hex")}` !== digest) throw new AppError("DATA_LOSS", `the blob ${digest} is damaged`);
    if (held !== undefined) yield held;
  } finally {
    await file.close();
  }
}

async function write(
  path: string,
  content: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  maxBytes: number,
): Promise<BlobInfo> {
  const hash = createHash("sha256");
  let sizeBytes = 0;
  const file = await open(path, "wx", 0o600);
  try {
    for await (const chunk of content) {
      sizeBytes += chunk.byteLength;
      if (sizeBytes > maxBytes) throw new AppError("MESSAGE_TOO_LARGE", `the blob is larger than ${maxBytes} bytes`);
      hash.update(chunk);
      // Not `write`: that may write a part of the chunk only.
      await file.writeFile(chunk);
    }
    await file.sync();
  } finally {
    await file.close();
  }
  return { digest: `sha256:${hash.digest("hex")}`, sizeBytes };
}

/** Makes a directory whose name survives a power failure. */
async function makeDirectory(path: string): Promise<void> {
  const first = await mkdir(path, { recursive: true, mode: 0o700 });
  if (first === undefined) return;
  for (let made = path; ; made = dirname(made)) {
    await syncDirectory(dirname(made));
    if (made === first) return;
  }
}

async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, "r");
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

async function removeAbandoned(uploads: string): Promise<void> {
  for (const name of await readdir(uploads)) {
    const path = join(uploads, name);
    try {
      if ((await stat(path)).mtimeMs < Date.now() - abandonedAfterMs) await rm(path);
    } catch (error) {
      if (!isMissing(error)) throw error; // another process removed it, or finished it
    }
  }
}

/** Digests become paths; the type alone keeps nobody out. */
function assertDigest(digest: string): void {
  if (!isBlobDigest(digest)) throw new TypeError("not a blob's digest");
}

function isMissing(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).code === "ENOENT";
}

function isDiskFull(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException;
  return code === "ENOSPC" || code === "EDQUOT";
}
