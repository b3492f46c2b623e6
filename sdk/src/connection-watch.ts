import { CadreError } from "./error.ts";

/** Waits for something that a connection brings; bounded. */
export type ConnectionWatch = <T>(waiting: Promise<T>) => Promise<T>;

/**
 * Bounds each wait for a connection: past the timeout, the wait rejects with
 * `UNAVAILABLE` and the connection is aborted.
 *
 * @param timeoutMs milliseconds of silence
 */
export function createConnectionWatch(connection: AbortController, timeoutMs: number): ConnectionWatch {
  return (waiting) =>
    new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        const error = new CadreError("UNAVAILABLE", `the connection was silent for ${timeoutMs} ms`);
        reject(error);
        connection.abort(error);
      }, timeoutMs);
      waiting.then(
        (value) => {
          clearTimeout(timer);
          resolve(value);
        },
        (thrown: unknown) => {
          clearTimeout(timer);
          reject(thrown);
        },
      );
    });
}
