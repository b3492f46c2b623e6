import { type Model, ModelService } from "@cadre/gen/cadre/orchestrator/v1/model_pb";
import type { Caller } from "./caller.ts";
import { createListing, type Listing, type PageOptions } from "./page.ts";

/** The models that agents can use. */
export interface Models {
  /** Lists the models that are configured, by name. */
  list(options?: PageOptions): Listing<Model>;
}

/** Creates the models of a client. */
export function createModels(caller: Caller): Models {
  return {
    list(options = {}) {
      return createListing(options, async (pageToken) => {
        const request = { pageSize: options.pageSize ?? 0, pageToken };
        const response = await caller.unary(ModelService.method.listModels, request, { signal: options.signal });
        return { items: response.models, nextPageToken: response.nextPageToken };
      });
    },
  };
}
