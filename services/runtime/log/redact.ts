const secretKey = /pass|secret|token|key$|^key_?file|auth|cookie|cred|signature/i;
/** Names that look like secrets by the pattern above and are not. */
const harmlessKeys: ReadonlySet<string> = new Set(["idempotency_key", "partition_key", "key_id"]);

const secretText = [
  // Our own API keys.
  /\bcdr_(?:live|dev)_[0-9A-Za-z]{38}\b/g,
  // JSON Web Tokens.
  /\beyJ[0-9A-Za-z_-]{8,}\.[0-9A-Za-z_-]{8,}\.[0-9A-Za-z_-]{4,}/g,
  // What follows `Bearer`.
  /(?<=\bBearer )[^\s"',]{8,}/gi,
  // Keys of model providers.
  /\bsk-[0-9A-Za-z_-]{16,}/g,
  // The password of a URL.
  /(?<=\b[a-z][a-z0-9+.-]{1,20}:\/\/[^\s/:@]{0,100}:)[^\s/@]{1,200}(?=@)/gi,
];

const mask = "[redacted]";
const maxDepth = 6;
const maxText = 4_096;

/** Masks whatever in a text has the form of a credential, and cuts it to 4 KiB. */
export function redactText(text: string): string {
  let result = text.length > maxText ? `${text.slice(0, maxText)}…` : text;
  for (const pattern of secretText) result = result.replace(pattern, mask);
  return result;
}

/**
 * A copy of a value that may be logged: fields named like secrets are masked,
 * texts that look like credentials too, and nothing lies deeper than six levels.
 */
export function redact(value: unknown, depth = 0): unknown {
  if (typeof value === "string") return redactText(value);
  if (typeof value === "bigint") return value.toString();
  if (typeof value !== "object" || value === null) return value;
  if (depth >= maxDepth) return "[deeper]";
  if (value instanceof Error) return redactError(value, depth);
  if (value instanceof Uint8Array) return `[${value.byteLength} bytes]`;
  if (Array.isArray(value)) return value.slice(0, 100).map((item) => redact(item, depth + 1));
  const result: Record<string, unknown> = Object.create(null);
  for (const [name, item] of Object.entries(value).slice(0, 100)) {
    result[name] = secretKey.test(name) && !harmlessKeys.has(name) ? mask : redact(item, depth + 1);
  }
  return result;
}

function redactError(error: Error, depth: number): unknown {
  const code: unknown = Reflect.get(error, "code");
  return {
    type: error.name,
    message: redactText(error.message),
    stack: redactText(error.stack ?? ""),
    ...(typeof code === "string" || typeof code === "number" ? { code } : {}),
    ...(error.cause === undefined ? {} : { cause: redact(error.cause, depth + 1) }),
  };
}
