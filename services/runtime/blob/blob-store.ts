/**
 * Keeps bytes under their digest. What was put is on disk when `put` answers,
 * and is never changed: the same bytes have the same digest, and are kept once.
 *
 * A digest is no secret and no permission: who may read a blob is for the
 * caller to decide, from rows of its own.
 */
export interface BlobStore {
  /**
   * Stores a stream of bytes.
   *
   * @throws AppError MESSAGE_TOO_LARGE past `maxBytes`; nothing is kept
   * @throws AppError INVALID_ARGUMENT if the bytes do not have the digest that was expected; nothing is kept
   * @throws AppError UNAVAILABLE if the disk is full
   */
  put(content: AsyncIterable<Uint8Array> | Iterable<Uint8Array>, options: PutBlobOptions): Promise<BlobInfo>;
  /** Opens a blob; `undefined` if there is none. */
  get(digest: BlobDigest): Promise<Blob | undefined>;
  has(digest: BlobDigest): Promise<boolean>;
  /** Removes a blob, if there is one. A reader that has begun reads it to its end. */
  delete(digest: BlobDigest): Promise<void>;
}

/** `sha256:` and 64 hexadecimal digits in lower case. */
export type BlobDigest = `sha256:${string}`;

export interface PutBlobOptions {
  readonly maxBytes: number;
  /** What the bytes must hash to, if it is known beforehand. */
  readonly expected?: BlobDigest;
}

export interface BlobInfo {
  readonly digest: BlobDigest;
  readonly sizeBytes: number;
}

export interface Blob extends BlobInfo {
  /**
   * The bytes; each iteration reads them from the start. The last of them are
   * given only after the whole was found to have its digest, so whoever reads to
   * the end has read what was put.
   *
   * @throws AppError DATA_LOSS from the iteration if they were changed, cut off, or removed meanwhile
   */
  readonly content: AsyncIterable<Uint8Array>;
}

/** Whether a text is a digest in the form that the store takes. */
export function isBlobDigest(text: string): text is BlobDigest {
  return /^sha256:[0-9a-f]{64}$/.test(text);
}
