import { createServer, type RequestListener, type Server } from "node:http";
import { type AddressInfo, createServer as createTcpServer, type Server as TcpServer } from "node:net";
import { gzipSync } from "node:zlib";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { AppError, FailureReason } from "../../runtime/errors/app-error.ts";
import { parseAllowList, parsePrivateList } from "./allow-list.ts";
import { createEgressGuard, type EgressDenial, type EgressGuard, type Resolve } from "./egress-guard.ts";

/** Hosts that must never be reached, as a URL may spell them. */
const internalHosts = [
  "127.0.0.1",
  "localhost",
  "LOCALHOST",
  "sub.localhost",
  "0.0.0.0",
  "0",
  "127.1",
  "127.0.1",
  "2130706433",
  "0x7f000001",
  "0x7f.1",
  "0177.0.0.1",
  "017700000001",
  "127.0.0.1.",
  "localhost.",
  "[::1]",
  "[0:0:0:0:0:0:0:1]",
  "[::ffff:127.0.0.1]",
  "[::ffff:7f00:1]",
  "[::127.0.0.1]",
  "[::]",
  "[::ffff:0:127.0.0.1]",
  "169.254.169.254",
  "[fd00:ec2::254]",
  "168.63.129.16",
  "metadata.google.internal",
  "metadata",
  "metadata.goog",
  "instance-data",
  "printer.local",
  "100.100.100.200",
  "10.0.0.1",
  "10.255.255.255",
  "172.16.0.1",
  "172.31.255.255",
  "192.168.0.1",
  "100.64.0.1",
  "198.18.0.1",
  "198.19.255.255",
  "192.0.0.1",
  "192.0.2.1",
  "198.51.100.1",
  "203.0.113.1",
  "192.88.99.1",
  "240.0.0.1",
  "255.255.255.255",
  "224.0.0.1",
  "[fe80::1]",
  "[fec0::1]",
  "[fd00::1]",
  "[fc00::1]",
  "[ff02::1]",
  "[64:ff9b::c0a8:1]",
  "[64:ff9b::7f00:1]",
  "[64:ff9b:1::c0a8:1]",
  "[2002:c0a8:1::]",
  "[2002:7f00:1::]",
  "[2001::1]",
  "[2001:db8::1]",
  "[100::1]",
  "[5f00::1]",
  "[3fff::1]",
  "１２７.０.０.１",
  "127。0。0。1",
  "ⓛocalhost",
];

/** URLs that no parser should be trusted with. */
const oddUrls = [
  "http://user@127.0.0.1:PORT/",
  "http://allowed.example@127.0.0.1:PORT/",
  "http://user:pass@localhost:PORT/",
  "http://allowed.example\\@127.0.0.1:PORT/",
  "http:\\\\127.0.0.1:PORT\\",
  "http://127.0.0.1:PORT\\.allowed.example/",
  "http://127.0.0.1:PORT#@allowed.example/",
  "http://allowed.example#@127.0.0.1:PORT/",
  "http:127.0.0.1:PORT/",
  "http:/127.0.0.1:PORT/",
  "http:///127.0.0.1:PORT/",
  "//127.0.0.1:PORT/",
  "127.0.0.1:PORT",
  " http://127.0.0.1:PORT/",
  "http://127.0.0.1\t:PORT/",
  "ht\ntp://127.0.0.1:PORT/",
  "http://127.0.0.1:PORT/\r\nHost: x",
  "http://127.0.0.1%00.allowed.example:PORT/",
  "http://%31%32%37.0.0.1:PORT/",
  "http://[::1%25lo]:PORT/",
  "http://localhost..:PORT/",
  "http://0/",
  "file:///etc/passwd",
  "gopher://127.0.0.1:PORT/_",
  "data:text/plain,x",
  "unix:/var/run/docker.sock",
  "ftp://127.0.0.1:PORT/",
  "javascript:alert(1)",
  "ws://127.0.0.1:PORT/",
  "",
];

/** Addresses that a name may resolve to, when its owner wishes us ill. */
const internalAddresses = [
  "127.0.0.1",
  "0.0.0.0",
  "::1",
  "::",
  "::ffff:127.0.0.1",
  "::ffff:a00:1",
  "::7f00:1",
  "10.1.2.3",
  "172.20.0.1",
  "192.168.1.1",
  "169.254.169.254",
  "100.100.100.200",
  "168.63.129.16",
  "fd00:ec2::254",
  "100.64.1.1",
  "198.18.1.1",
  "192.0.0.8",
  "240.1.1.1",
  "fe80::1",
  "fe80::1%lo",
  "fd12::1",
  "64:ff9b::7f00:1",
  "2002:7f00:1::1",
  "2001:0:1::1",
  "100::1",
  "5f00::1",
  "ff02::1",
  "not an address",
];

let connects: number;
let listeners: TcpServer[];
let port: number;

beforeAll(async () => {
  const count = (): TcpServer =>
    createTcpServer((socket) => {
      connects += 1;
      socket.destroy();
    });
  const ipv4 = count();
  await new Promise<void>((resolve) => ipv4.listen(0, "127.0.0.1", resolve));
  port = (ipv4.address() as AddressInfo).port;
  const ipv6 = count();
  await new Promise<void>((resolve, reject) => ipv6.once("error", reject).listen(port, "::1", resolve));
  listeners = [ipv4, ipv6];
});

afterAll(async () => {
  await Promise.all(listeners.map((listener) => new Promise((resolve) => listener.close(resolve))));
});

let denials: EgressDenial[];

beforeEach(() => {
  connects = 0;
  denials = [];
});

function guard(options: {
  allow: string[];
  allowPrivate?: string[];
  resolve?: Resolve;
  timeoutMs?: number;
}): EgressGuard {
  return createEgressGuard({
    allow: parseAllowList(options.allow),
    allowPrivate: parsePrivateList(options.allowPrivate ?? []),
    onDenied: async (denial) => void denials.push(denial),
    ...(options.resolve === undefined ? {} : { resolve: options.resolve }),
    ...(options.timeoutMs === undefined ? {} : { timeoutMs: options.timeoutMs }),
  });
}

async function failure(guarded: EgressGuard, url: string, signal = AbortSignal.timeout(15_000)): Promise<AppError> {
  const outcome = await guarded.request({ url, method: "GET", headers: {}, signal }).then(
    () => undefined,
    (error: AppError) => error,
  );
  if (outcome === undefined) throw new Error("the request was answered");
  return outcome;
}

/** An allow-list that names a host in every way, for plain http and https on the listener's port. */
function allowing(host: string): string[] {
  const canonical = URL.canParse(`http://${host}/`) ? new URL(`http://${host}/`).hostname : host;
  return [host, canonical]
    .map((name) => name.toLowerCase().replace(/\.$/, ""))
    .filter((name) => /^[a-z0-9.[\]:-]+$/.test(name))
    .flatMap((name) => [`http://${name}:${port}`, `${name}:${port}`]);
}

describe("an internal host is refused although it is allowed by name", () => {
  test.each(internalHosts)("http and https %s", async (host) => {
    const allowed = guard({ allow: allowing(host), resolve: async () => ["127.0.0.1"] });
    for (const scheme of ["http", "https"]) {
      expect((await failure(allowed, `${scheme}://${host}:${port}/path?secret=1`)).reason).toBe("EGRESS_DENIED");
    }
    expect(connects).toBe(0);
    expect(denials).toHaveLength(2);
    expect(JSON.stringify(denials)).not.toContain("secret");
  });
});

describe("an odd URL is refused", () => {
  test.each(oddUrls)("%j", async (template) => {
    const url = template.replace("PORT", String(port));
    const rules = ["127.0.0.1", "localhost", "allowed.example", "[::1]"].flatMap((host) => [
      `http://${host}:${port}`,
      `http://${host}`,
    ]);
    const allowed = guard({ allow: rules, resolve: async () => ["127.0.0.1"] });
    expect((await failure(allowed, url)).reason).toBe("EGRESS_DENIED");
    expect(connects).toBe(0);
    expect(denials).toHaveLength(1);
  });
});

describe("a name that resolves to something internal is refused", () => {
  test.each(internalAddresses)("%s", async (address) => {
    for (const answers of [[address], ["93.184.215.14", address], [address, "93.184.215.14"]]) {
      const allowed = guard({ allow: [`http://rebind.example:${port}`], resolve: async () => answers });
      expect((await failure(allowed, `http://rebind.example:${port}/`)).reason).toBe("EGRESS_DENIED");
    }
    expect(connects).toBe(0);
  });

  test("also when it answered otherwise a moment before", async () => {
    let asked = 0;
    const resolve: Resolve = async () => (asked++ === 0 ? ["93.184.215.14"] : ["127.0.0.1"]);
    const allowed = guard({ allow: [`http://rebind.example:${port}`], resolve, timeoutMs: 300 });
    // The first is pinned to the public address, whatever comes of it; the name is not asked again for it.
    expect((await failure(allowed, `http://rebind.example:${port}/`)).reason).not.toBe("EGRESS_DENIED");
    expect(asked).toBe(1);
    expect((await failure(allowed, `http://rebind.example:${port}/`)).reason).toBe("EGRESS_DENIED");
    expect(connects).toBe(0);
  });
});

test("the metadata service stays out of reach even when the operator allows it", async () => {
  const allowed = guard({
    allow: ["http://169.254.169.254", "http://meta.example"],
    allowPrivate: ["169.254.169.254:80", "meta.example:80"],
    resolve: async () => ["169.254.169.254"],
  });
  expect((await failure(allowed, "http://169.254.169.254/latest/")).metadata).toEqual({ class: "metadata" });
  expect((await failure(allowed, "http://meta.example/latest/")).metadata).toEqual({ class: "metadata" });
});

describe("the allow-list", () => {
  const cases: [string, string[], string, boolean][] = [
    ["empty allows nothing", [], "https://example.com/", false],
    ["names a host on 443", ["example.com"], "https://example.com/", true],
    ["does not name its other ports", ["example.com"], "https://example.com:8443/", false],
    ["does not name it over http", ["example.com"], "http://example.com/", false],
    ["may name http", ["http://example.com"], "http://example.com/", true],
    ["that names http does not name https", ["http://example.com"], "https://example.com/", false],
    ["names a port", ["example.com:8443"], "https://example.com:8443/", true],
    ["ignores case and a trailing dot", ["Example.COM"], "https://EXAMPLE.com./", true],
    ["names subdomains", ["*.example.com"], "https://a.b.example.com/", true],
    ["of subdomains does not name the domain", ["*.example.com"], "https://example.com/", false],
    ["of subdomains names no look-alike", ["*.example.com"], "https://evilexample.com/", false],
    ["names no longer name", ["example.com"], "https://example.com.evil.test/", false],
  ];
  test.each(cases)("%s", async (_, allow, url, allowed) => {
    // A name without an address tells "allowed" from "refused" without a connection.
    const error = await failure(guard({ allow, resolve: async () => [] }), url);
    expect(error.reason).toBe(allowed ? "TOOL_FAILED" : "EGRESS_DENIED");
  });

  test.each(["", "*", "*.", "https://", "example.com/path", "a b", "example.com:0", "example.com:70000", "ftp://a"])(
    "is refused with the rule %j",
    (rule) => {
      expect(() => parseAllowList([rule])).toThrow(TypeError);
    },
  );
});

describe("an allowed host", () => {
  let server: Server;
  let origin: string;
  let respond: RequestListener;
  let requests: { url: string | undefined; host: string | undefined }[];

  beforeEach(async () => {
    requests = [];
    server = createServer((request, response) => {
      requests.push({ url: request.url, host: request.headers.host });
      respond(request, response);
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    origin = `host.test:${(server.address() as AddressInfo).port}`;
  });

  afterEach(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });

  const toServer = (more: { timeoutMs?: number } = {}): EgressGuard =>
    guard({ allow: [`http://${origin}`], allowPrivate: [origin], resolve: async () => ["127.0.0.1"], ...more });

  test("is reached, with its name in the request, and answers unpacked", async () => {
    respond = (_, response) =>
      response.writeHead(200, { "content-type": "text/plain", "content-encoding": "gzip" }).end(gzipSync("hello"));
    const signal = AbortSignal.timeout(5_000);
    const answer = await toServer().request({ url: `http://${origin}/a?b=c#d`, method: "GET", headers: {}, signal });
    expect(answer.status).toBe(200);
    expect(Buffer.from(answer.body).toString()).toBe("hello");
    expect(requests).toEqual([{ url: "/a?b=c", host: origin }]);
    expect(denials).toEqual([]);
  });

  test("is reached directly although the environment names a proxy", async () => {
    const saved = { ...process.env };
    Object.assign(process.env, {
      http_proxy: `http://127.0.0.1:${port}`,
      HTTP_PROXY: `http://127.0.0.1:${port}`,
      NODE_USE_ENV_PROXY: "1",
    });
    try {
      respond = (_, response) => response.end("direct");
      const signal = AbortSignal.timeout(5_000);
      await toServer().request({ url: `http://${origin}/`, method: "GET", headers: {}, signal });
      expect(connects).toBe(0);
    } finally {
      process.env = saved;
    }
  });

  describe("that redirects is not followed", () => {
    const locations = [
      ...internalHosts.filter((host) => /^[\x21-\x7e]+$/.test(host)).map((host) => `http://${host}:PORT/`),
      "https://example.com/",
      "/other",
      "//127.0.0.1:PORT/",
      "gopher://127.0.0.1:PORT/",
    ];
    test.each(locations)("to %s", async (template) => {
      const location = template.replace("PORT", String(port));
      for (const status of [301, 302, 303, 307, 308]) {
        respond = (_, response) => response.writeHead(status, { location }).end();
        expect((await failure(toServer(), `http://${origin}/`)).metadata).toEqual({ class: "redirect" });
      }
      expect(connects).toBe(0);
      expect(requests).toHaveLength(5);
      expect(denials).toHaveLength(5);
    });
  });

  test("that redirects and goes on sending is left", async () => {
    const left = new Promise<void>((resolve) => {
      respond = (_, response) => {
        response.writeHead(302, { location: "/other" });
        const timer = setInterval(() => response.write("x".repeat(1_000)), 1);
        response.once("close", () => {
          clearInterval(timer);
          resolve();
        });
      };
    });
    expect((await failure(toServer(), `http://${origin}/`)).reason).toBe("EGRESS_DENIED");
    await left;
  });

  describe("that answers badly fails as", () => {
    const bomb = gzipSync(Buffer.alloc(200 * 1024 * 1024));
    const answers: [FailureReason, string, RequestListener][] = [
      [
        "MESSAGE_TOO_LARGE",
        "unpacks to 200 MiB",
        (_, response) => response.writeHead(200, { "content-encoding": "gzip" }).end(bomb),
      ],
      [
        "MESSAGE_TOO_LARGE",
        "sends without an end",
        (_, response) => {
          const chunk = Buffer.alloc(65_536, "x");
          const send = (): void => {
            while (!response.destroyed && response.write(chunk));
            response.once("drain", send);
          };
          send();
        },
      ],
      [
        "MESSAGE_TOO_LARGE",
        "has 100 KB of headers",
        (_, response) => response.writeHead(200, { "x-long": "x".repeat(100_000) }).end(),
      ],
      ["DEADLINE_EXCEEDED", "never answers", () => undefined],
      [
        "DEADLINE_EXCEEDED",
        "sends a byte now and then",
        (_, response) => {
          const timer = setInterval(() => response.write("x"), 20);
          response.once("close", () => clearInterval(timer));
        },
      ],
      [
        "TOOL_FAILED",
        "sends less than it said",
        (_, response) => response.writeHead(200, { "content-length": "100" }).write("x", () => response.destroy()),
      ],
      [
        "TOOL_FAILED",
        "is no gzip",
        (_, response) => response.writeHead(200, { "content-encoding": "gzip" }).end("plain"),
      ],
      [
        "TOOL_FAILED",
        "is packed unasked",
        (_, response) => response.writeHead(200, { "content-encoding": "zstd" }).end("plain"),
      ],
      ["TOOL_FAILED", "hangs up", (request) => request.socket.destroy()],
    ];
    test.each(answers)("%s when it %s", async (reason, _, respondBadly) => {
      respond = respondBadly;
      const rssBefore = process.memoryUsage().rss;
      const startedAt = performance.now();
      expect((await failure(toServer({ timeoutMs: 1_000 }), `http://${origin}/`)).reason).toBe(reason);
      expect(performance.now() - startedAt).toBeLessThan(1_500);
      expect(process.memoryUsage().rss - rssBefore).toBeLessThan(64 * 1024 * 1024);
    });
  });

  test("is left when the caller cancels", async () => {
    const controller = new AbortController();
    const left = new Promise<void>((resolve) => {
      respond = (request) => {
        request.socket.once("close", () => resolve());
        controller.abort();
      };
    });
    expect((await failure(toServer(), `http://${origin}/`, controller.signal)).reason).toBe("CANCELLED");
    await left;
  });
});
