import { setTimeout as delay } from "node:timers/promises";
import { CadreError } from "@cadre/sdk";

const maxTries = 600;
const retryMs = 100;

/** Makes a call until it is answered, over whatever happens to the server; a minute at least. */
export async function insist<T>(call: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries += 1) {
    try {
      return await call();
    } catch (error) {
      if (!(error instanceof CadreError) || !error.retryable || tries === maxTries) throw error;
      await delay(retryMs);
    }
  }
}
