import type { Principal } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { DeadLetterService } from "@cadre/gen/cadre/events/v1/dead_letter_pb";
import { AppError } from "../../runtime/errors/app-error.ts";
import { toUuid } from "../../runtime/ids/id.ts";
import { redact } from "../../runtime/log/redact.ts";
import type { PageTokens } from "../../runtime/page/page-token.ts";
import { type Implementation, implement } from "../../runtime/rpc/implementation.ts";
import { requirePrincipal } from "../../runtime/rpc/request-context.ts";
import {
  type CloseDeadLetterDeps,
  deadLetterNotFound,
  discardDeadLetter,
  requeueDeadLetter,
} from "../app/close-dead-letter.ts";
import { maskedValue } from "../app/masked-value.ts";
import { type LetterReference, noOrg } from "../store/dead-letter-store.ts";
import { fromLetter, toState } from "./convert.ts";

const defaultPageSize = 50;

/** The dead letters of an org. */
export function deadLetterHandlers(
  deps: CloseDeadLetterDeps,
  pages: PageTokens,
): Implementation<typeof DeadLetterService> {
  const { letters } = deps;
  return implement(DeadLetterService, {
    async listDeadLetters({ topic, group, state, unattributed, ...request }, context) {
      const principal = requirePrincipal(context);
      if (unattributed && !principal.operator) {
        throw new AppError("ROLE_TOO_LOW", "unattributed: is for operators of the installation");
      }
      const { orgId } = principal;
      const filter = JSON.stringify([topic, group, state, unattributed]);
      const scope = { orgId, method: `${DeadLetterService.typeName}/ListDeadLetters`, filter };
      const size = request.pageSize || defaultPageSize;
      const before = pages.open(scope, request.pageToken);
      const org = unattributed ? noOrg : toUuid("org", orgId);
      const rows = await letters.list(org, { topic, group, state: toState(state) }, before, size + 1);
      const page = rows.slice(0, size);
      const last = page.at(-1);
      return {
        deadLetters: page.map(fromLetter),
        nextPageToken: rows.length > size && last !== undefined ? pages.seal(scope, last.deadLetterId) : "",
      };
    },
    async getDeadLetter({ deadLetterId }, context) {
      const found = await letters.find(referenceOf(requirePrincipal(context), deadLetterId));
      if (found === undefined) throw deadLetterNotFound();
      const { letter, event } = found;
      const value = maskedValue(event);
      const answer = {
        deadLetter: fromLetter(letter),
        key: event.key,
        headers: redact(event.headers) as Record<string, string>,
      };
      return value === undefined ? answer : { ...answer, value };
    },
    async requeueDeadLetter({ deadLetterId }, context) {
      const principal = requirePrincipal(context);
      const letter = await requeueDeadLetter(deps, referenceOf(principal, deadLetterId), principal.subject);
      return { deadLetter: fromLetter(letter) };
    },
    async discardDeadLetter({ deadLetterId }, context) {
      const principal = requirePrincipal(context);
      const letter = await discardDeadLetter(deps, referenceOf(principal, deadLetterId), principal.subject);
      return { deadLetter: fromLetter(letter) };
    },
  });
}

/** Letters whose org cannot be told are an operator's business. */
function referenceOf({ orgId, operator }: Principal, deadLetterId: string): LetterReference {
  const own = toUuid("org", orgId);
  return { orgIds: operator ? [own, noOrg] : [own], deadLetterId: toUuid("dlt", deadLetterId) };
}
