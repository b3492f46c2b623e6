import type { OrchestratorConfig } from "../config.ts";
import { createModelCatalog, type ModelCatalog } from "./model.ts";
import { createOpenAiModel } from "./openai.ts";
import { createKeySource } from "./openai-key.ts";
import { createScriptedModel } from "./scripted.ts";

/** What a model of an endpoint reads unless its setting says so, in tokens. */
const defaultContextTokens = 128_000;

/** The models that the configuration names, and `scripted`. */
export function createConfiguredModels(config: OrchestratorConfig): ModelCatalog {
  const key = createKeySource(config.CADRE_OPENAI_API_KEY, config.CADRE_OPENAI_API_KEY_FILE);
  const openai = config.CADRE_OPENAI_MODELS.map((text) => {
    const { name, contextTokens } = parseModel(text);
    return createOpenAiModel({ name, contextTokens, key, baseUrl: config.CADRE_OPENAI_BASE_URL });
  });
  return createModelCatalog([...openai, createScriptedModel({ wordMs: config.CADRE_SCRIPTED_WORD_MS })]);
}

/** `name` or `name:context_tokens`; a name may hold colons of its own, as `llama3:8b` does. */
function parseModel(text: string): { readonly name: string; readonly contextTokens: number } {
  const match = /^(.+):(\d{3,8})$/.exec(text);
  if (match?.[1] === undefined) return { name: text, contextTokens: defaultContextTokens };
  return { name: match[1], contextTokens: Number(match[2]) };
}
