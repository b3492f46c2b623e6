import { defineSettings, type SettingsValues, setting } from "../runtime/config/settings.ts";

/** The orchestrator's settings. */
export const orchestratorSettings = defineSettings({
  CADRE_DEFAULT_MODEL: {
    schema: setting.text("scripted"),
    description: "The model of the agent `assistant` that every org has, as `cadre` lists it; scripted unless said.",
  },
  CADRE_LEDGER_KEYS: {
    schema: setting.optionalText(),
    description:
      "A directory with the keys that ends of ledgers are signed with, *.key with 64 hexadecimal digits, 0600; the same for all orchestrators, and the last one by name signs. Default: <data>/keys/ledger, with a key made at first start.",
  },
  CADRE_OPENAI_API_KEY: {
    schema: setting.optionalText(),
    description: "The key of the OpenAI-compatible endpoint; prefer CADRE_OPENAI_API_KEY_FILE.",
    secret: true,
  },
  CADRE_OPENAI_API_KEY_FILE: {
    schema: setting.optionalText(),
    description: "A file with the key of the OpenAI-compatible endpoint; read again when it changes.",
  },
  CADRE_MAX_UNRELAYED_ENTRIES: {
    schema: setting.integer(100_000, { min: 1, max: 10_000_000 }),
    description:
      "How many journal entries of a process may wait for the bus; past it new turns and runs are refused as unavailable, and those that run go on. 100000 unless said.",
  },
  CADRE_OPENAI_BASE_URL: {
    schema: setting
      .text("https://api.openai.com/v1")
      .refine((text) => URL.canParse(text) && /^https?:$/.test(new URL(text).protocol), "must be an http(s) URL"),
    description: "Where an OpenAI-compatible endpoint answers; https://api.openai.com/v1 unless said.",
  },
  CADRE_OPENAI_MODELS: {
    schema: setting
      .list()
      .refine(
        (models) => models.every((model) => /^[^\s:,][^\s,]*?(:\d{3,8})?$/.test(model)),
        "must be names, each with `:` and its context in tokens if wanted",
      ),
    description:
      "The endpoint's models, separated by commas, each as `name` or `name:context_tokens` (128000 unless said); agents call them `openai/<name>`.",
  },
  CADRE_SCRIPTED_WORD_MS: {
    schema: setting.integer(0, { min: 0, max: 10_000 }),
    description: "How long the scripted model takes for a word, in milliseconds; 0 unless said.",
  },
  CADRE_STEP_FACTS: {
    schema: setting.optionalFlag(),
    description:
      "Whether each step of a run and each call of a tool is stated on agent.steps.v1 and agent.tools.v1: true or false. Default: true with CADRE_BUS=kafka, else false.",
  },
  CADRE_ORCHESTRATOR_LEASE_MS: {
    schema: setting.integer(5_000, { min: 500, max: 60_000 }),
    description:
      "How long the sessions of a dead process wait until another one takes them, in milliseconds; 5000 unless said.",
  },
  CADRE_ORCHESTRATOR_PREVIOUS_WRITERS_ARE_DEAD: {
    schema: setting.flag(false),
    description:
      "Whether no other orchestrator can use this database, so that leases of earlier ones are not waited for. Set by the embedded topology, which holds the data directory's lock; false unless said.",
  },
});

/** The orchestrator's parsed configuration. */
export type OrchestratorConfig = SettingsValues<typeof orchestratorSettings>;
