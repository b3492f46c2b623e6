import { ModelService } from "@cadre/gen/cadre/orchestrator/v1/model_pb";
import type { ServiceImpl } from "@connectrpc/connect";
import type { PageTokens } from "../../runtime/page/page-token.ts";
import { requirePrincipal } from "../../runtime/rpc/request-context.ts";
import type { ModelCatalog } from "../models/model.ts";
import { pageSize } from "./page-size.ts";

const listMethod = `${ModelService.typeName}/ListModels`;

/** The handlers of ModelService. */
export function modelHandlers(deps: {
  readonly models: ModelCatalog;
  readonly pages: PageTokens;
}): ServiceImpl<typeof ModelService> {
  return {
    listModels(request, context) {
      const scope = { orgId: requirePrincipal(context).orgId, method: listMethod, filter: "" };
      const after = deps.pages.open(scope, request.pageToken) ?? "";
      const size = pageSize(request.pageSize);
      const rest = deps.models.list().filter(({ name }) => name > after);
      const models = rest.slice(0, size).map(({ name, provider, contextTokens, available }) => ({
        name,
        provider,
        contextTokens: BigInt(contextTokens),
        available,
      }));
      const last = models.at(-1)?.name;
      return {
        models,
        nextPageToken: rest.length > size && last !== undefined ? deps.pages.seal(scope, last) : "",
      };
    },
  };
}
