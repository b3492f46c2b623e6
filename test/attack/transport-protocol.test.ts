import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { codeOf, connectFrames, frame, frameType, grpcFields, h2Code, headerBlock } from "./h2-frames.ts";
import { doors, startTarget, type Target } from "./target.ts";
import {
  call,
  envelope,
  rawExchange,
  readAnswer,
  request1,
  request2,
  sessionMethod,
  unaryProtocols,
} from "./wire-client.ts";

const invalidArgument = 3;
const unimplemented = 12;
const connectHeaders = { "content-type": "application/json", "connect-protocol-version": "1" };
const sendTurn = sessionMethod("SendTurn");

// The same at both doors: the edge's own handler, and the gateway that is built on it.
describe.each(doors)("at the door of the %s", (door) => {
  let target: Target;
  beforeAll(async () => {
    target = await startTarget({ door });
  });
  afterAll(() => target.stop());

  describe("methods, content types and versions", () => {
    test.each(["gzip-2", "deflate", "zstd", "gzip, br"])(
      "the encoding %j is unimplemented, and the answer says which are",
      async (encoding) => {
        for (const protocol of unaryProtocols) {
          const answer = await call(target.port, protocol, sendTurn, "", { encoding });
          expect(answer).toMatchObject({ code: unimplemented, reason: "UNIMPLEMENTED" });
          if (protocol === "connect")
            expect(answer).toMatchObject({ status: 501, headers: { "accept-encoding": "gzip,br" } });
        }
        await target.assertUnharmed();
      },
    );

    test.each([
      "text/plain",
      "application/x-www-form-urlencoded",
      "multipart/form-data; boundary=a",
      "",
      "application/jsonp",
      "application/json; charset=utf-16",
      "application/connect+proto",
      "application/grpc-web-text",
    ])("the content type %j is answered with 415", async (contentType) => {
      const headers = { ...connectHeaders, "content-type": contentType };
      expect((await request1(target.port, { method: "POST", path: sendTurn, headers }, "{}")).status).toBe(415);
      expect((await request2(target.port, { ":method": "POST", ":path": sendTurn, ...headers }, "{}")).status).toBe(
        415,
      );
      await target.assertUnharmed();
    });

    test("no content type is answered with 415", async () => {
      const headers = { "connect-protocol-version": "1" };
      expect((await request1(target.port, { method: "POST", path: sendTurn, headers }, "{}")).status).toBe(415);
    });

    test.each(["PUT", "DELETE", "TRACE", "PATCH", "OPTIONS", "HEAD"])("%s is answered with 405", async (method) => {
      expect((await request1(target.port, { method, path: sendTurn, headers: connectHeaders })).status).toBe(405);
      expect((await request2(target.port, { ":method": method, ":path": sendTurn, ...connectHeaders })).status).toBe(
        405,
      );
      await target.assertUnharmed();
    });

    test("GET of a method with effects is answered with 405, and says what is allowed", async () => {
      const path = `${sendTurn}?connect=v1&encoding=json&message=%7B%7D`;
      const answer = await request1(target.port, { method: "GET", path });
      expect(answer).toMatchObject({ status: 405, headers: { allow: "POST" } });
    });

    test.each([
      ["without connect=v1", "?encoding=json&message=%7B%7D", 400],
      ["with connect=v2", "?connect=v2&encoding=json&message=%7B%7D", 400],
      ["with a message that is not base64", "?connect=v1&encoding=proto&base64=1&message=%21%21", 400],
      ["with a message that is no JSON", "?connect=v1&encoding=json&message=%7B", 400],
      ["with a message of another encoding", "?connect=v1&encoding=json&compression=gzip&message=%7B%7D", 400],
      ["with an unknown compression", "?connect=v1&encoding=json&compression=zip&message=%7B%7D", 501],
      ["with an unknown codec", "?connect=v1&encoding=xml&message=%7B%7D", 415],
      ["as it should be", "?connect=v1&encoding=json&message=%7B%7D", 200],
    ])("GET of a method without effects %s", async (_, query, status) => {
      const answer = await request1(target.port, { method: "GET", path: sessionMethod("ListTurns") + query });
      expect(answer.status).toBe(status);
      await target.assertUnharmed();
    });

    test.each([[undefined], ["9"], ["1, 1"], ["v1"]])("Connect-Protocol-Version %j is refused", async (version) => {
      const headers = {
        "content-type": "application/json",
        ...(version === undefined ? {} : { "connect-protocol-version": version }),
      };
      const answer = readAnswer(
        await request1(target.port, { method: "POST", path: sendTurn, headers }, "{}"),
        "connect",
        false,
      );
      expect(answer).toMatchObject({ status: 400, code: invalidArgument, reason: "INVALID_METADATA" });
    });

    test("a method of two streams over HTTP/1.1 is answered with 505, and the connection closed", async () => {
      const path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
      for (const contentType of ["application/connect+proto", "application/grpc+proto"]) {
        const answer = await request1(
          target.port,
          { method: "POST", path, headers: { ...connectHeaders, "content-type": contentType } },
          envelope(""),
        );
        expect(answer).toMatchObject({ status: 505, headers: { connection: "close" } });
      }
      await target.assertUnharmed();
    });

    test.each(["/cadre.orchestrator.v1.SessionService/Nope", "/nope", "/nope/"])(
      "the unknown path %s is answered with 404",
      async (path) => {
        expect((await request1(target.port, { method: "POST", path, headers: connectHeaders }, "{}")).status).toBe(404);
        expect(
          (await request2(target.port, { ":method": "POST", ":path": path, ...connectHeaders }, "{}")).status,
        ).toBe(404);
      },
    );
  });

  describe("spellings of a path", () => {
    test.each([
      `/${sendTurn}`,
      `/x/..${sendTurn}`,
      `/.${sendTurn}`,
      sendTurn.toUpperCase(),
      sendTurn.toLowerCase(),
      sendTurn.replace(".", "%2e"),
      sendTurn.replace("S", "%53"),
      `${sendTurn}/`,
      `${sendTurn};a=b`,
      `${sendTurn}%00`,
      sendTurn.replace("/SendTurn", "\\SendTurn"),
      `http://127.0.0.1${sendTurn}`,
      `${sendTurn}#x`,
    ])("%s is not found", async (path) => {
      const before = (await target.report()).entered;
      const head = `POST ${path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Type: application/json\r\nConnect-Protocol-Version: 1\r\nContent-Length: 2\r\n\r\n{}`;
      expect((await rawExchange(target.port, head)).text).toMatch(/^HTTP\/1\.1 404 /);
      const connection = await connectFrames(target.port);
      const fields = grpcFields(path);
      connection.send(frame(frameType.headers, 4, 1, headerBlock(fields)), frame(frameType.data, 1, 1, envelope("")));
      const answer = await connection.next(
        ({ type, stream }) => stream === 1 && (type === frameType.headers || type === frameType.rstStream),
      );
      // nghttp2 refuses a target that is no path by itself.
      if (answer.type === frameType.rstStream) expect(codeOf(answer)).toBe(h2Code.protocolError);
      else expect(statusOf(answer.payload)).toBe("404");
      connection.socket.destroy();
      expect((await target.report()).entered).toBe(before);
      await target.assertUnharmed();
    });
  });

  describe("timeouts", () => {
    const over = String(5 * 60_000 + 1);
    test.each([
      ["connect", "connect-timeout-ms", ["-5", "abc", "1e9", "12345678901", over, "2147483648", "0", "", "5, 5"]],
      ["grpc", "grpc-timeout", ["5X", "999999999H", "99999999H", "-5S", "S", "0S", "301S", ""]],
      ["grpc-web", "grpc-timeout", ["5X", "999999999H", "99999999H", "-5S", "S", "0S", "301S", ""]],
    ] as const)("%s refuses wrong values of %s before any timer is set", async (protocol, field, values) => {
      for (const value of values) {
        const answer = await call(target.port, protocol, sendTurn, "", { headers: { [field]: value } });
        expect(answer, `${field}: ${value}`).toMatchObject({
          status: protocol === "connect" ? 400 : 200,
          code: invalidArgument,
          reason: "INVALID_TIMEOUT",
        });
      }
      // Asserts that Node did not warn of an overflow.
      await target.assertUnharmed();
    });

    test.each([
      ["connect", "connect-timeout-ms", "300000"],
      ["grpc", "grpc-timeout", "300S"],
      ["grpc-web", "grpc-timeout", "1H"],
    ] as const)("%s takes the longest timeout, and no longer one", async (protocol, field, value) => {
      const answer = await call(target.port, protocol, sendTurn, "", { headers: { [field]: value } });
      expect(answer.code).toBe(value === "1H" ? invalidArgument : 0);
    });

    test("the timeout field of another protocol sets no timer", async () => {
      const headers = { "connect-timeout-ms": "99999999999", "grpc-timeout": "99999999H" };
      expect(
        await call(target.port, "grpc", sendTurn, "", { headers: { "connect-timeout-ms": "2147483648" } }),
      ).toMatchObject({ code: 0 });
      expect(await call(target.port, "connect", sendTurn, "", { headers })).toMatchObject({ code: invalidArgument });
      await target.assertUnharmed();
    });
  });

  describe("metadata", () => {
    const get = (head: string) =>
      rawExchange(
        target.port,
        `POST ${sendTurn} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/json\r\nConnect-Protocol-Version: 1\r\nContent-Length: 2\r\n${head}\r\n{}`,
      );
    const fields = (count: number) =>
      Array.from({ length: count }, (_, index): [string, string] => [`x-${index}`, "a"]);

    test.each([
      [
        "129 fields",
        fields(129)
          .map(([name, value]) => `${name}: ${value}\r\n`)
          .join(""),
      ],
      ["a field of 20 KiB", `x-big: ${"a".repeat(20_480)}\r\n`],
      ["a field of 4 KiB and one byte", `x-big: ${"a".repeat(4_092)}\r\n`],
      [
        "64 KiB in all",
        fields(64)
          .map(([name]) => `${name}: ${"a".repeat(1_000)}\r\n`)
          .join(""),
      ],
      ["10,000 cookies", `cookie: ${Array.from({ length: 10_000 }, (_, index) => `c${index}=1`).join("; ")}\r\n`],
    ])("%s over HTTP/1.1 is answered with 431", async (_, head) => {
      const before = (await target.report()).entered;
      const { text } = await get(head);
      expect(text).toMatch(/^HTTP\/1\.1 431 /);
      expect(text).not.toMatch(/HTTP\/1\.1 200/);
      expect((await target.report()).entered).toBe(before);
      await target.assertUnharmed();
    });

    test.each([
      ["129 fields", fields(129)],
      ["a field of 20 KiB", [["x-big", "a".repeat(20_480)]]],
      ["a field of 4 KiB and one byte", [["x-big", "a".repeat(4_092)]]],
      ["17 KiB in all", fields(17).map(([name]) => [name, "a".repeat(1_000)])],
      ["64 KiB in all", fields(64).map(([name]) => [name, "a".repeat(1_000)])],
    ] as [string, [string, string][]][])("%s over HTTP/2 is answered with 431 or ends the stream", async (_, more) => {
      const before = (await target.report()).entered;
      const connection = await connectFrames(target.port);
      sendHeaders(connection, headerBlock(grpcFields(sendTurn, more)));
      const answer = await connection.next(
        ({ type, stream }) =>
          type === frameType.goaway || (stream === 1 && (type === frameType.headers || type === frameType.rstStream)),
      );
      if (answer.type === frameType.headers) expect(statusOf(answer.payload)).toBe("431");
      else expect([h2Code.enhanceYourCalm, h2Code.refusedStream, h2Code.protocolError, 2, 9]).toContain(codeOf(answer));
      connection.socket.destroy();
      expect((await target.report()).entered).toBe(before);
      await target.assertUnharmed();
    });

    test.each([
      "x-request-id: a\x00b",
      "x-request-id: a\x01b",
      "x-request-id: a\rb",
      "x request-id: a",
      "x-request-id : a",
      " x: a",
    ])("the header line %j is answered with 400 and reflected nowhere", async (line) => {
      const { text } = await get(`${line}\r\n`);
      expect(text).toMatch(/^HTTP\/1\.1 400 /);
      expect(text).not.toContain("200 OK");
      await target.assertUnharmed();
    });

    // nghttp2 drops such a field and tells nobody; what matters is that nobody sees it.
    test.each(["a\x00b", "a\nb", "a\rb", "a\r\nset-cookie: x=y"])(
      "the value %j over HTTP/2 reaches no handler",
      async (value) => {
        const connection = await connectFrames(target.port);
        const fields = grpcFields(sendTurn, [["x-note", value]]).map(([name, text]): [string, string] => [
          name,
          text.replace("+proto", "+json"),
        ]);
        connection.send(
          frame(frameType.headers, 4, 1, headerBlock(fields)),
          frame(frameType.data, 1, 1, envelope(`{"sessionId":"says its headers"}`)),
        );
        const answer = await connection.next(
          ({ type, stream }) => stream === 1 && (type === frameType.data || type === frameType.rstStream),
        );
        expect(answer.payload.toString()).not.toContain("x-note");
        expect(connection.frames.map(({ payload }) => payload.toString("latin1")).join()).not.toContain("set-cookie");
        connection.socket.destroy();
        await target.assertUnharmed();
      },
    );

    test.each([
      ["x-trace-bin", "%%%"],
      ["x-trace-bin", "a"],
      ["x-trace-bin", "YQ==YQ=="],
      ["grpc-status", "0"],
      ["grpc-message", "x"],
      ["grpc-status-details-bin", "YQ"],
      ["x-note", "caf\u00e9"],
    ])("%s: %j is refused and named", async (name, value) => {
      for (const protocol of unaryProtocols) {
        const answer = await call(target.port, protocol, sendTurn, "", { headers: { [name]: value } });
        expect(answer).toMatchObject({
          status: protocol === "connect" ? 400 : 200,
          code: invalidArgument,
          reason: "INVALID_METADATA",
        });
        expect(answer.message).toContain(name);
        expect(answer.message).not.toContain(value.length > 2 ? value : "\u0000");
      }
      await target.assertUnharmed();
    });

    test("good base64 is taken, padded or not", async () => {
      for (const value of ["YQ==", "YQ", "YWI", "YWJj", ""]) {
        expect(await call(target.port, "grpc", sendTurn, "", { headers: { "x-trace-bin": value } })).toMatchObject({
          code: 0,
        });
      }
    });

    test.each(unaryProtocols)(
      "over %s handlers see no field that only our processes may say, and a request id of ours",
      async (protocol) => {
        const strange = {
          "x-request-id": "r".repeat(3_000),
          "x-cadre-principal": "root",
          "x-service-token": "t",
          "x-forwarded-for": "10.0.0.1",
          "x-user-id": "u",
          traceparent: `00-${"1".repeat(32)}-${"2".repeat(16)}-01`,
          "x-tenant-id": "other",
        };
        const answer = await call(target.port, protocol, sendTurn, `{"sessionId":"says its headers"}`, {
          json: true,
          headers: strange,
        });
        expect(answer.code).toBe(0);
        const { turn } = JSON.parse(answer.messages[0]?.toString() ?? "") as { turn: { text: string } };
        const seen = new Map(JSON.parse(turn.text) as [string, string][]);
        // A forwarder hands on nothing of the caller's header, so behind the gateway there is none.
        if (door === "edge") expect(seen.get("x-request-id")).toBe(answer.headers["x-request-id"]);
        else expect([...seen.keys()].filter((name) => name in strange)).toEqual([]);
        for (const name of ["x-cadre-principal", "x-service-token", "x-forwarded-for", "x-user-id", "traceparent"])
          expect(seen.has(name)).toBe(false);
        expect(answer.headers).toMatchObject({
          "x-request-id": expect.stringMatching(/^req_[0-9a-z]{26}$/),
          "x-content-type-options": "nosniff",
          "cache-control": "no-store",
        });
        expect(Object.keys(answer.headers)).not.toContain("server");
        expect(Object.keys(answer.headers)).not.toContain("x-powered-by");
      },
    );
  });

  describe("two readings of one request", () => {
    const head = `POST ${sendTurn} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nConnect-Protocol-Version: 1\r\n`;
    test.each([
      [
        "Content-Length and Transfer-Encoding",
        `${head}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
      ],
      ["two Content-Lengths", `${head}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} `],
      ["a list of Content-Lengths", `${head}Content-Length: 2, 3\r\n\r\n{} `],
      ["two Content-Lengths that agree", `${head}Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}`],
      ["chunked, identity", `${head}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n`],
      ["an unknown transfer encoding", `${head}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n`],
      ["a chunk size of 0x", `${head}Transfer-Encoding: chunked\r\n\r\n0x2\r\n{}\r\n0\r\n\r\n`],
      ["a negative Content-Length", `${head}Content-Length: -2\r\n\r\n{}`],
      ["two Hosts", `${head}Host: b\r\nContent-Length: 2\r\n\r\n{}`],
      ["no Host", `${head.replace("Host: a\r\n", "")}Content-Length: 2\r\n\r\n{}`],
      ["a Host that is none", `${head.replace("Host: a", "Host: a/b@c")}Content-Length: 2\r\n\r\n{}`],
      ["two Authorizations", `${head}Authorization: a\r\nAuthorization: b\r\nContent-Length: 2\r\n\r\n{}`],
      ["bare line feeds", `${head.replaceAll("\r\n", "\n")}Content-Length: 2\n\n{}`],
      ["a folded line", `${head}X-A: b\r\n c\r\nContent-Length: 2\r\n\r\n{}`],
    ])("%s is answered with 400 and the connection closed", async (_, request) => {
      const before = (await target.report()).entered;
      // A second request in the same bytes must not be served.
      const { text, closed } = await rawExchange(target.port, `${request}${head}Content-Length: 2\r\n\r\n{}`);
      expect(text).toMatch(/^HTTP\/1\.1 400 /);
      expect(text.match(/HTTP\/1\.1 /g)).toHaveLength(1);
      expect(text.toLowerCase()).toContain("connection: close");
      expect(closed).toBe(true);
      expect((await target.report()).entered).toBe(before);
      await target.assertUnharmed();
    });

    test.each([
      ["connection", "keep-alive"],
      ["transfer-encoding", "chunked"],
      ["upgrade", "websocket"],
      ["keep-alive", "5"],
      ["te", "gzip"],
      ["Host", "a"],
    ])("HTTP/2 with %s: %s ends the stream with PROTOCOL_ERROR", async (name, value) => {
      const before = (await target.report()).entered;
      const connection = await connectFrames(target.port);
      connection.send(
        frame(frameType.headers, 4, 1, headerBlock(grpcFields(sendTurn, [[name, value]]))),
        frame(frameType.data, 1, 1, envelope("")),
      );
      const answer = await connection.next(
        ({ type, stream }) =>
          (stream === 1 && (type === frameType.headers || type === frameType.rstStream)) || type === frameType.goaway,
      );
      expect(answer.type).not.toBe(frameType.headers);
      expect(codeOf(answer)).toBe(h2Code.protocolError);
      connection.socket.destroy();
      expect((await target.report()).entered).toBe(before);
      await target.assertUnharmed();
    });

    test("HTTP/2 with an authority and another host is answered with 400", async () => {
      const answer = await request2(
        target.port,
        { ":method": "POST", ":path": sendTurn, ":authority": "a", host: "b", ...connectHeaders },
        "{}",
      );
      expect(answer.status).toBe(400);
    });

    test("HTTP/2 with a content-length that is not the body's is not answered", async () => {
      const connection = await connectFrames(target.port);
      connection.send(
        frame(frameType.headers, 4, 1, headerBlock(grpcFields(sendTurn, [["content-length", "3"]]))),
        frame(frameType.data, 1, 1, envelope("")),
      );
      const answer = await connection.next(
        ({ type, stream }) => (type === frameType.rstStream && stream === 1) || type === frameType.goaway,
      );
      // Node ends the session with INTERNAL_ERROR, which harms nobody but its caller.
      expect([h2Code.protocolError, h2Code.internalError]).toContain(codeOf(answer));
      connection.socket.destroy();
      await target.assertUnharmed();
    });
  });

  describe("handlers that fail", () => {
    const internal = 13;
    test.each(["throws an error", "throws a string", "rejects with undefined"])(
      "one that %s is answered with nothing of it",
      async (sessionId) => {
        for (const protocol of unaryProtocols) {
          const answer = await call(target.port, protocol, sendTurn, JSON.stringify({ sessionId }), { json: true });
          expect(answer).toMatchObject({
            status: protocol === "connect" ? 500 : 200,
            code: internal,
            reason: "INTERNAL",
            message: "internal error",
          });
        }
        await target.assertUnharmed(["postgres://"]);
      },
    );

    test.each(unaryProtocols)("a stream over %s that fails after 3 messages ends with it", async (protocol) => {
      const body = JSON.stringify({ sessionId: "throws at the end", afterSeq: "3" });
      const answer = await call(target.port, protocol, sessionMethod("StreamEvents"), body, {
        json: true,
        stream: true,
      });
      expect(answer).toMatchObject({ status: 200, code: internal, message: "internal error" });
      expect(answer.messages).toHaveLength(3);
      await target.assertUnharmed();
    });

    test("a rejection that nobody handles leaves the process up", async () => {
      const other = await startTarget({ door });
      try {
        const answer = await call(other.port, "connect", sendTurn, `{"sessionId":"rejects in a timer"}`, {
          json: true,
        });
        expect(answer.status).toBe(200);
        expect((await call(other.port, "grpc", sendTurn, "")).code).toBe(0);
        expect((await other.report()).unhandled).toHaveLength(1);
      } finally {
        await other.stop();
      }
    });
  });

  describe("upgrades", () => {
    test("a WebSocket is answered with 501 and why, while nobody serves it", async () => {
      const { text, closed } = await rawExchange(
        target.port,
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
      );
      expect(text).toMatch(/^HTTP\/1\.1 501 /);
      expect(closed).toBe(true);
      await target.assertUnharmed();
    });

    test("CONNECT is refused", async () => {
      const { text } = await rawExchange(target.port, "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 500);
      expect(text).not.toMatch(/ 200 /);
      await target.assertUnharmed();
    });
  });
});

/** Splits a header block over HEADERS and CONTINUATION frames of at most 16 KiB. */
function sendHeaders(connection: Awaited<ReturnType<typeof connectFrames>>, block: Buffer): void {
  const parts: Buffer[] = [];
  for (let position = 0; position < block.length; position += 16_384)
    parts.push(block.subarray(position, position + 16_384));
  parts.forEach((part, index) => {
    const last = index === parts.length - 1 ? 4 : 0;
    connection.send(frame(index === 0 ? frameType.headers : frameType.continuation, last, 1, part));
  });
}

/** The status of a response header of nghttp2: indexed for the usual ones, else a literal of three digits. */
function statusOf(block: Buffer): string {
  const indexed: Readonly<Record<number, string>> = {
    136: "200",
    137: "204",
    138: "206",
    139: "304",
    140: "400",
    141: "404",
    142: "500",
  };
  const first = block[0] ?? 0;
  if (first >= 128) return indexed[first] ?? "";
  const length = block[1] ?? 0;
  const literal = block.subarray(2, 2 + (length & 0x7f));
  return (length & 0x80) === 0 ? literal.toString() : huffmanDigits(literal);
}

/** Three digits in the Huffman code of RFC 7541 appendix B: 0 to 2 have 5 bits, 3 to 9 have 6. */
function huffmanDigits(bytes: Buffer): string {
  let bits = [...bytes].map((byte) => byte.toString(2).padStart(8, "0")).join("");
  let text = "";
  while (text.length < 3) {
    const five = Number.parseInt(bits.slice(0, 5), 2);
    if (five <= 2) {
      text += five;
      bits = bits.slice(5);
    } else {
      text += Number.parseInt(bits.slice(0, 6), 2) - 0x19 + 3;
      bits = bits.slice(6);
    }
  }
  return text;
}
