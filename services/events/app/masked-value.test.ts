import { create } from "@bufbuild/protobuf";
import { IssueKeyResponseSchema } from "@cadre/gen/cadre/credentials/v1/api_key_pb";
import { GetPrincipalResponseSchema } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { expect, test } from "vitest";
import { turnEvent } from "../../../test/support/turn-facts.ts";
import { newId } from "../../runtime/ids/id.ts";
import { maskedJson, maskedValue } from "./masked-value.ts";

test("a field that is declared sensitive is left out, at whatever depth", () => {
  const issued = create(IssueKeyResponseSchema, { key: { name: "web" }, secret: "cdr_live_secret" });
  expect(maskedJson(IssueKeyResponseSchema, issued)).toEqual({ key: { name: "web" } });
  const asked = create(GetPrincipalResponseSchema, { principal: { subject: "ada@example.com", orgId: "org_1" } });
  expect(maskedJson(GetPrincipalResponseSchema, asked)).toEqual({ principal: { orgId: "org_1" } });
});

test("an event of a topic is shown as its message; what is none is not shown", async () => {
  const sessionId = newId("ses");
  const event = await turnEvent(newId("org"), sessionId, 7);
  expect(maskedValue(event)).toMatchObject({ sessionId, change: "TURN_CHANGE_STARTED" });
  expect(maskedValue({ ...event, value: Buffer.from("ff00", "hex") })).toBeUndefined();
  expect(maskedValue({ ...event, topic: "gossip" })).toBeUndefined();
});
