import { join } from "node:path";
import { loadOrMakeKeyFile, readKeyFile } from "../identity/key-file.ts";
import type { Platform } from "../platform/platform.ts";
import { createPageTokens, type PageTokens } from "./page-token.ts";

/**
 * Page tokens under the key of `CADRE_PAGE_TOKEN_KEY_FILE`; if that is not set,
 * of `<data>/keys/page-token.key`, made at first start. Processes with data
 * directories of their own need one named file with the same key, or a list
 * begun at one cannot go on at another.
 *
 * @throws ConfigurationError if the file is no key, is not there though it is named, or others may read it
 */
export function loadPageTokens({
  dataDirectory,
  pageTokenKeyFile,
}: Pick<Platform, "dataDirectory" | "pageTokenKeyFile">): PageTokens {
  const key =
    pageTokenKeyFile === undefined
      ? loadOrMakeKeyFile(join(dataDirectory, "keys", "page-token.key"))
      : readKeyFile(pageTokenKeyFile);
  return createPageTokens(key);
}
