/** Hexadecimal digits, two a byte, are how our own keys are written. */
const hexadecimal = /^(?:[0-9a-f]{2})+$/i;

/** Words of keys that stand in documentation, in lower case without separators; long enough to be in no random key. */
const exampleWords = ["example", "changeme", "placeholder", "replaceme", "yourkey", "yoursecret", "insecure"];

/** So few different characters are in no random key of 32 bytes, whatever it is written in. */
const fewestCharacters = 9;

/** How many bytes a key in a file has: of hexadecimal digits half as many, of any other text as many as it has. */
export function keyBytesOf(text: string): number {
  const key = text.trim();
  return hexadecimal.test(key) ? key.length / 2 : Buffer.byteLength(key);
}

/**
 * Whether a key looks like one that was typed or copied from documentation: few
 * different characters, a piece that is repeated, bytes that count up or down,
 * a word such as `change-me`. No random key of 32 bytes does.
 */
export function isExampleKey(text: string): boolean {
  const key = text.trim().toLowerCase();
  // A private key in PEM was made by a program; and in so much base64, any word may come about.
  if (key.startsWith("-----begin")) return false;
  const words = key.replaceAll(/[^a-z0-9]/g, "");
  return (
    new Set(key).size < fewestCharacters ||
    exampleWords.some((word) => words.includes(word)) ||
    isRepeated(key) ||
    isSequence(hexadecimal.test(key) ? [...Buffer.from(key, "hex")] : [...Buffer.from(key)])
  );
}

/** Whether a text is a shorter one, again and again: it is found in itself, doubled, before its end. */
function isRepeated(text: string): boolean {
  return `${text}${text}`.indexOf(text, 1) < text.length;
}

/** Whether each byte follows from the one before by the same step. */
function isSequence(bytes: readonly number[]): boolean {
  const step = (at: number): number => ((bytes[at] ?? 0) - (bytes[at - 1] ?? 0)) & 0xff;
  return bytes.every((_, at) => at < 2 || step(at) === step(1));
}
