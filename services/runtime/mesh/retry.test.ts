import { create } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { expect, test } from "vitest";
import { InteropResponseSchema, InteropService } from "../../../test/support/gen/cadre/test/v1/interop_pb.js";
import { AppError } from "../errors/app-error.ts";
import { toConnectError } from "../errors/failure.ts";
import { bytesCodec, defaultMessageLimits } from "../rpc/message-codec.ts";
import { createWireTransport, type Wire } from "../rpc/wire-transport.ts";
import { retry } from "./retry.ts";

const unreachable = new ConnectError("no connection", Code.Unavailable);

/** A client whose calls fail as told, one failure an attempt, and then succeed. */
function clientOf(failures: readonly ConnectError[]) {
  const seen = { attempts: 0 };
  const attempt = async () => {
    const failure = failures[seen.attempts];
    seen.attempts += 1;
    if (failure !== undefined) throw failure;
  };
  const wire: Wire<Uint8Array> = {
    codec: bytesCodec,
    async unary() {
      await attempt();
      return { header: new Headers(), trailer: new Headers(), packed: new Uint8Array() };
    },
    async stream() {
      await attempt();
      return {
        header: new Headers(),
        trailer: new Headers(),
        messages: (async function* () {
          yield new Uint8Array();
        })(),
      };
    },
  };
  const options = { attempts: 3, initialMs: 10 };
  return {
    seen,
    client: createClient(InteropService, createWireTransport(wire, [retry(options)], defaultMessageLimits)),
  };
}

test("an idempotent call that nobody answered is made again, three times at most", async () => {
  const lucky = clientOf([unreachable, unreachable]);
  expect(await lucky.client.unary({})).toEqual(create(InteropResponseSchema));
  expect(lucky.seen.attempts).toBe(3);
  const unlucky = clientOf([unreachable, unreachable, unreachable, unreachable]);
  await expect(unlucky.client.unary({})).rejects.toMatchObject({ code: Code.Unavailable });
  expect(unlucky.seen.attempts).toBe(3);
});

test("a peer that shuts down is left for another", async () => {
  const { client, seen } = clientOf([toConnectError(new AppError("SHUTTING_DOWN", "going"), "")]);
  await client.unary({});
  expect(seen.attempts).toBe(2);
});

test.each([
  { what: "another failure", failure: new ConnectError("no", Code.Internal) },
  { what: "what the service itself found unavailable", failure: toConnectError(new AppError("UNAVAILABLE", "db"), "") },
])("$what is not tried again", async ({ failure }) => {
  const { client, seen } = clientOf([failure]);
  await expect(client.unary({})).rejects.toMatchObject({ code: failure.code });
  expect(seen.attempts).toBe(1);
});

test("a stream is not tried again: its requests are gone", async () => {
  const { client, seen } = clientOf([unreachable]);
  await expect(client.clientStream((async function* () {})())).rejects.toMatchObject({ code: Code.Unavailable });
  expect(seen.attempts).toBe(1);
});

test("no attempt starts past the deadline, nor after the caller left", async () => {
  const failures = Array.from({ length: 3 }, () => unreachable);
  const left = new AbortController();
  const leaving = clientOf(failures);
  const call = leaving.client.unary({}, { signal: left.signal });
  left.abort();
  await expect(call).rejects.toBeInstanceOf(ConnectError);
  expect(leaving.seen.attempts).toBeLessThan(3);
});
