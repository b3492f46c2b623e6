/** Questions that many have at the same time, each asked once for all of them. */
export interface SharedQuestions<T> {
  /** Whether the question is under way. */
  has(key: string): boolean;
  /** The answer to the question that is under way, or else to a new one. */
  ask(key: string, question: () => Promise<T>): Promise<T>;
  /**
   * The answer to a question that was not asked before this call: while one is
   * under way it waits for that, and for the next one with all who came
   * meanwhile. So a question is never asked twice at once, however many come.
   */
  askFromNow(key: string, question: () => Promise<T>): Promise<T>;
}

interface Line<T> {
  readonly answer: Promise<T>;
  next: Promise<T> | undefined;
}

/** Shares answers by key; remembers none. */
export function createSharedQuestions<T>(): SharedQuestions<T> {
  const lines = new Map<string, Line<T>>();

  function begin(key: string, question: () => Promise<T>): Promise<T> {
    const line: Line<T> = { answer: question(), next: undefined };
    lines.set(key, line);
    const end = (): void => {
      if (line.next === undefined) lines.delete(key);
    };
    line.answer.then(end, end);
    return line.answer;
  }

  return {
    has: (key) => lines.has(key),
    ask: (key, question) => lines.get(key)?.answer ?? begin(key, question),
    askFromNow(key, question) {
      const line = lines.get(key);
      if (line === undefined) return begin(key, question);
      const beginNext = (): Promise<T> => begin(key, question);
      line.next ??= line.answer.then(beginNext, beginNext);
      return line.next;
    },
  };
}
