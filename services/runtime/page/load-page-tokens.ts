import { join } from "node:path";
import { loadOrMakeKeyFile } from "../identity/key-file.ts";
import { createPageTokens, type PageTokens } from "./page-token.ts";

/**
 * Page tokens under the key in `<data>/keys/page-token.key`, made at first
 * start. Processes with data directories of their own need a copy of the file,
 * or a list begun at one cannot go on at another.
 *
 * @throws ConfigurationError if the file is no key, or others may read it
 */
export function loadPageTokens(dataDirectory: string): PageTokens {
  return createPageTokens(loadOrMakeKeyFile(join(dataDirectory, "keys", "page-token.key")));
}
