import { z } from "zod";
import { defineSettings, type SettingsValues, setting } from "../runtime/config/settings.ts";
import { parseAllowList, parsePrivateList } from "./egress/allow-list.ts";

/** Settings of the tools service. */
export const toolsSettings = defineSettings({
  CADRE_EGRESS_ALLOW: {
    schema: rules(parseAllowList),
    description:
      "Hosts that http_fetch may reach, separated by commas: api.example.com, api.example.com:8443, *.example.com, http://plain.example.com. Default: none.",
  },
  CADRE_EGRESS_ALLOW_PRIVATE: {
    schema: rules(parsePrivateList),
    description:
      "Allowed hosts whose addresses need not be public, as host:port, separated by commas. They must be in CADRE_EGRESS_ALLOW as well. Default: none.",
  },
  CADRE_TOOLS_WORKER_WAIT_MS: {
    schema: setting.integer(5_000, { min: 0, max: 60_000 }),
    description: "How long a call waits for a worker that serves its tool, in milliseconds. Default: 5000.",
  },
  CADRE_TOOLS_CALL_RETENTION_HOURS: {
    schema: setting.integer(168, { min: 24, max: 8_760 }),
    description:
      "How long the outcome of a tool's call is kept for the same idempotency key, in hours. Longer than a run may last. Default: 168.",
  },
});

/** What the settings say. */
export type ToolsConfig = SettingsValues<typeof toolsSettings>;

/** A list in which every rule must be readable. */
function rules<T>(parse: (texts: readonly string[]) => T): z.ZodType<T, string | undefined> {
  return setting.list().transform((texts, context) => {
    try {
      return parse(texts);
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
      context.addIssue({ code: "custom", message: error.message });
      return z.NEVER;
    }
  });
}
