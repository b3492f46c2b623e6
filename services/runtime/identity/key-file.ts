import { randomBytes } from "node:crypto";
import {
  closeSync,
  constants,
  fstatSync,
  fsyncSync,
  linkSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { dirname } from "node:path";
import { ConfigurationError } from "../config/settings.ts";

const keyBytes = 32;

/**
 * Reads a key of 32 bytes, 64 hexadecimal digits in a file, or makes it at
 * first start. Of several processes that start at once one makes it and all
 * get the same.
 *
 * @throws ConfigurationError if the file is no such key, or others may read it
 */
export function loadOrMakeKeyFile(file: string): Buffer {
  try {
    return readKey(file);
  } catch (thrown) {
    if (!isErrno(thrown, "ENOENT")) throw thrown;
  }
  mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
  const temporary = temporaryName(file);
  writePrivateFile(temporary, `${randomBytes(keyBytes).toString("hex")}\n`);
  try {
    // A link fails where a rename would replace what another process has made.
    linkSync(temporary, file);
    syncDirectory(dirname(file));
  } catch (thrown) {
    if (!isErrno(thrown, "EEXIST")) throw thrown;
  } finally {
    unlinkSync(temporary);
  }
  return readKey(file);
}

/**
 * Reads a key of 32 bytes that somebody else made.
 *
 * @throws ConfigurationError if the file is not there or no such key, or others may read it
 */
export function readKeyFile(file: string): Buffer {
  try {
    return readKey(file);
  } catch (thrown) {
    if (isErrno(thrown, "ENOENT")) throw new ConfigurationError([`${file} is not there: correct the path`]);
    throw thrown;
  }
}

function readKey(file: string): Buffer {
  const text = readPrivateFile(file).trim();
  if (!/^[0-9a-f]{64}$/i.test(text)) throw new ConfigurationError([`${file} must hold 64 hexadecimal digits`]);
  return Buffer.from(text, "hex");
}

/**
 * Reads a file that only its owner may read.
 *
 * @throws ConfigurationError if others may, or if it belongs to another user
 */
export function readPrivateFile(file: string): string {
  const descriptor = openSync(file, "r");
  try {
    // The opened file is looked at, not its name: nothing can be put in between.
    const { mode, uid } = fstatSync(descriptor);
    if ((mode & 0o077) !== 0) throw new ConfigurationError([`${file} can be read by others: chmod 600 it`]);
    const self = process.getuid?.();
    if (self !== undefined && uid !== self) throw new ConfigurationError([`${file} belongs to another user`]);
    return readFileSync(descriptor, "utf8");
  } finally {
    closeSync(descriptor);
  }
}

/** Writes a file that only its owner may read, whole or not at all, and durably. Replaces one that is there. */
export function replacePrivateFile(file: string, text: string): void {
  mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
  const temporary = temporaryName(file);
  writePrivateFile(temporary, text);
  renameSync(temporary, file);
  syncDirectory(dirname(file));
}

function writePrivateFile(file: string, text: string): void {
  const descriptor = openSync(file, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o600);
  try {
    writeSync(descriptor, text);
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

/** A new name in a directory lasts once the directory is on disk. */
function syncDirectory(directory: string): void {
  const descriptor = openSync(directory, "r");
  try {
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

function temporaryName(file: string): string {
  return `${file}.${process.pid}.${randomBytes(6).toString("hex")}`;
}

function isErrno(thrown: unknown, code: string): boolean {
  return thrown instanceof Error && Reflect.get(thrown, "code") === code;
}
