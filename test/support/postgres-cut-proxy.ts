import { type AddressInfo, connect, createServer, type Socket } from "node:net";

/**
 * What was committed by the answer that was kept: a statement that commits by
 * itself, named by the function that it calls, or a transaction.
 */
export type CommitKind = "append" | "commit";

/** A proxy in front of PostgreSQL that understands its protocol and can keep the answer to a commit. */
export interface PostgresCutProxy {
  readonly port: number;
  /** How many connections were cut after the server had committed, by what it had. */
  readonly cuts: Readonly<Record<CommitKind, number>>;
  close(): Promise<void>;
}

/** What a client sent up to a Sync or as a simple query; one ReadyForQuery answers it. */
interface Unit {
  kind: CommitKind | undefined;
}

// Message types of the protocol, version 3.0:
// https://www.postgresql.org/docs/18/protocol-message-formats.html
const frontend = { bind: 0x42, parse: 0x50, query: 0x51, sync: 0x53 } as const;
const backend = { commandComplete: 0x43, error: 0x45, readyForQuery: 0x5a } as const;
const idle = 0x49;

/**
 * Starts the proxy. An answer is kept from its CommandComplete on; when the
 * ReadyForQuery after it says that the transaction is over, which the server
 * sends once the commit is on disk, both connections are reset.
 *
 * @param shouldCut asked for each commit
 */
export async function startPostgresCutProxy(
  target: { readonly host: string; readonly port: number },
  shouldCut: (kind: CommitKind) => boolean,
): Promise<PostgresCutProxy> {
  const sockets = new Set<Socket>();
  const cuts: Record<CommitKind, number> = { append: 0, commit: 0 };
  const server = createServer((client) => {
    const upstream = connect(target.port, target.host);
    const units: Unit[] = [];
    /** What prepared statements do, by their names; the one without a name is replaced each time. */
    const prepared = new Map<string, CommitKind | undefined>();
    let sending: Unit = { kind: undefined };
    let held: Buffer[] = [];
    const cut = (kind: CommitKind): void => {
      cuts[kind] += 1;
      client.resetAndDestroy();
      upstream.resetAndDestroy();
    };

    const fromClient = messagesOf({ startsUntyped: true });
    client.on("data", (chunk) => {
      for (const { type, body } of fromClient(chunk)) {
        if (type === frontend.parse) {
          const [name = "", statement = ""] = textsOf(body);
          prepared.set(name, kindOf(statement));
        }
        if (type === frontend.bind) sending.kind ??= prepared.get(textsOf(body)[1] ?? "");
        if (type === frontend.query) units.push({ kind: kindOf(body.toString("latin1")) });
        if (type === frontend.sync) {
          units.push(sending);
          sending = { kind: undefined };
        }
      }
      upstream.write(chunk);
    });

    const fromServer = messagesOf({ startsUntyped: false });
    upstream.on("data", (chunk) => {
      for (const { type, body, whole } of fromServer(chunk)) {
        const kind = units[0]?.kind;
        if (held.length > 0 || (type === backend.commandComplete && kind !== undefined && shouldCut(kind))) {
          held.push(whole);
        } else {
          client.write(whole);
        }
        if (type !== backend.readyForQuery) continue;
        units.shift();
        if (held.length === 0 || kind === undefined) continue;
        const failed = held.some((message) => message[0] === backend.error);
        if (!failed && body[0] === idle) {
          cut(kind);
          return;
        }
        for (const message of held) client.write(message);
        held = [];
      }
    });
    for (const [socket, other] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      sockets.add(socket);
      socket.on("error", () => other.destroy());
      socket.on("end", () => other.end());
      socket.on("close", () => {
        sockets.delete(socket);
        other.destroy();
      });
    }
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    port: (server.address() as AddressInfo).port,
    cuts,
    async close() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function kindOf(statement: string): CommitKind | undefined {
  if (/\bfrom append\(/.test(statement)) return "append";
  return /^commit\b/i.test(statement) ? "commit" : undefined;
}

/** The texts that a message begins with, each ended by a zero: name and statement of Parse, portal and name of Bind. */
function textsOf(body: Buffer): readonly string[] {
  return body.toString("latin1").split("\0", 2);
}

interface Message {
  /** Undefined for the first message of a client, which has none. */
  readonly type: number | undefined;
  readonly body: Buffer;
  readonly whole: Buffer;
}

/** Cuts a stream of bytes into messages: a type, a length that counts itself, and a body. */
function messagesOf({ startsUntyped }: { readonly startsUntyped: boolean }): (chunk: Buffer) => readonly Message[] {
  let rest: Buffer = Buffer.alloc(0);
  let isUntyped = startsUntyped;
  return (chunk) => {
    const messages: Message[] = [];
    rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    for (;;) {
      const typeBytes = isUntyped ? 0 : 1;
      if (rest.length < typeBytes + 4) return messages;
      const end = typeBytes + rest.readUInt32BE(typeBytes);
      if (rest.length < end) return messages;
      messages.push({
        type: isUntyped ? undefined : rest[0],
        body: rest.subarray(typeBytes + 4, end),
        whole: rest.subarray(0, end),
      });
      rest = rest.subarray(end);
      isUntyped = false;
    }
  };
}
