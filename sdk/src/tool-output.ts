/** Sends a part of what a call printed; resolves when it was taken, or will never be. */
export type SendOutput = (seq: bigint, text: string) => Promise<void>;

/** What a handler printed, on its way to the server. */
export interface ToolOutput {
  /** Takes text; resolves when there is room for more. */
  print(text: string): Promise<void>;
  /** Sends what is left and resolves when all is sent. Nothing is taken afterwards. */
  end(): Promise<void>;
}

// A person sees 25 ms as at once, and 16 KiB is where a report's own cost no
// longer matters.
const maxWaitMs = 25;
const fullLength = 16 * 1024;
// A report carries 256 KiB of UTF-8 at most, and a UTF-16 unit becomes at most
// 3 bytes.
const maxReportLength = 64 * 1024;
const maxBufferedLength = 1024 * 1024;

const note = "\n[output left out: it came faster than it could be sent]\n";

/**
 * Batches what a handler prints: a report goes out 25 ms after its first
 * character or when 16 Ki characters wait. One report is under way at a time,
 * so that they arrive in order; what comes meanwhile goes into the next.
 */
export function createToolOutput(send: SendOutput): ToolOutput {
  let buffer = "";
  let seq = 0n;
  let overflown = false;
  let ended = false;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let sending: Promise<void> | undefined;

  async function drain(): Promise<void> {
    while (buffer !== "") {
      const length = cutLength(buffer, maxReportLength);
      const text = buffer.slice(0, length);
      buffer = buffer.slice(length);
      seq += 1n;
      await send(seq, text);
      if (overflown && buffer.length < maxBufferedLength / 2) {
        overflown = false;
        buffer += note;
      }
    }
  }

  function flush(): Promise<void> {
    clearTimeout(timer);
    timer = undefined;
    sending ??= drain().finally(() => {
      sending = undefined;
    });
    return sending;
  }

  return {
    async print(text) {
      if (ended || text === "") return;
      const room = maxBufferedLength - buffer.length;
      if (text.length > room) overflown = true;
      buffer += text.slice(0, cutLength(text, Math.max(room, 0)));
      if (sending !== undefined) {
        if (buffer.length >= fullLength) await sending;
        return;
      }
      if (buffer.length >= fullLength) await flush();
      else timer ??= setTimeout(() => void flush(), maxWaitMs);
    },
    async end() {
      ended = true;
      while (buffer !== "" || sending !== undefined) await flush();
    },
  };
}

/** Where to cut a text so that no surrogate pair is torn. */
function cutLength(text: string, maxLength: number): number {
  if (text.length <= maxLength) return text.length;
  if (maxLength === 0) return 0;
  const last = text.charCodeAt(maxLength - 1);
  return last >= 0xd800 && last <= 0xdbff ? maxLength - 1 : maxLength;
}
