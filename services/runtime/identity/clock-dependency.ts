import { ServingState } from "@cadre/gen/cadre/gateway/v1/health_pb";
import type { Dependency } from "../platform/platform.ts";
import type { ChangeFeed } from "./change-feed.ts";
import { isClockRefusal } from "./service-token.ts";

/**
 * `clock`, for readiness: NOT_SERVING while credentials refuse what this
 * process sends because their clocks differ. Everybody refuses it then, or
 * nobody gets anything decided; it can carry nothing out.
 */
export function clockDependency(changes: Pick<ChangeFeed, "failure">): Dependency {
  return {
    name: "clock",
    check: async () =>
      hasWrongClock(changes)
        ? { state: ServingState.NOT_SERVING, detail: changes.failure?.message ?? "" }
        : { state: ServingState.SERVING, detail: "" },
  };
}

/** Whether credentials refuse this process for its clock, as far as the feed of changes knows. */
export function hasWrongClock({ failure }: Pick<ChangeFeed, "failure">): boolean {
  return failure !== undefined && isClockRefusal(failure);
}
