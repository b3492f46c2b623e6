import { once } from "node:events";
import * as net from "node:net";

/** Frame types of RFC 9113 §6. */
export const frameType = {
  data: 0,
  headers: 1,
  rstStream: 3,
  settings: 4,
  ping: 6,
  goaway: 7,
  continuation: 9,
} as const;

/** Codes of RFC 9113 §7. */
export const h2Code = {
  noError: 0,
  protocolError: 1,
  internalError: 2,
  refusedStream: 7,
  cancel: 8,
  enhanceYourCalm: 11,
} as const;

export interface Frame {
  readonly type: number;
  readonly flags: number;
  readonly stream: number;
  readonly payload: Buffer;
}

export function frame(type: number, flags: number, stream: number, payload: Uint8Array = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head.writeUInt8(type, 3);
  head.writeUInt8(flags, 4);
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

/** An HPACK block (RFC 7541) of literal fields without indexing. */
export function headerBlock(fields: readonly (readonly [string, string])[]): Buffer {
  return Buffer.concat(
    fields.flatMap(([name, value]) => [Buffer.from([0]), lengthPrefixed(name), lengthPrefixed(value)]),
  );
}

function lengthPrefixed(text: string): Buffer {
  const bytes = Buffer.from(text, "latin1");
  if (bytes.length < 127) return Buffer.concat([Buffer.from([bytes.length]), bytes]);
  const length: number[] = [127];
  let rest = bytes.length - 127;
  for (; rest >= 128; rest >>= 7) length.push((rest & 0x7f) | 0x80);
  length.push(rest);
  return Buffer.concat([Buffer.from(length), bytes]);
}

/** The fields of a good gRPC request. */
export function grpcFields(path: string, more: readonly (readonly [string, string])[] = []): [string, string][] {
  return [
    [":method", "POST"],
    [":scheme", "http"],
    [":path", path],
    [":authority", "127.0.0.1"],
    ["content-type", "application/grpc+proto"],
    ["te", "trailers"],
    ...more.map(([name, value]): [string, string] => [name, value]),
  ];
}

/** A connection that speaks HTTP/2 frame by frame, so that it can break the rules. */
export interface FrameConnection {
  readonly socket: net.Socket;
  readonly frames: readonly Frame[];
  readonly closed: boolean;
  /** Resolves with the first frame, past or to come, that fits; rejects when the connection ends without. */
  next(fits: (frame: Frame) => boolean): Promise<Frame>;
  send(...frames: readonly Buffer[]): void;
  /** Like `send`, and waits for the kernel to take it. */
  flush(...frames: readonly Buffer[]): Promise<void>;
  whenClosed(): Promise<void>;
}

/** Connects, sends preface and SETTINGS, and acknowledges the server's. */
export async function connectFrames(port: number): Promise<FrameConnection> {
  const socket = net.connect(port, "127.0.0.1");
  await once(socket, "connect");
  const frames: Frame[] = [];
  const watchers = new Set<() => void>();
  let buffered = Buffer.alloc(0);
  let closed = false;
  socket.on("data", (chunk: Buffer) => {
    buffered = Buffer.concat([buffered, chunk]);
    while (buffered.length >= 9) {
      const length = buffered.readUIntBE(0, 3);
      if (buffered.length < 9 + length) break;
      const received = {
        type: buffered.readUInt8(3),
        flags: buffered.readUInt8(4),
        stream: buffered.readUInt32BE(5) & 0x7fffffff,
        payload: buffered.subarray(9, 9 + length),
      };
      buffered = buffered.subarray(9 + length);
      frames.push(received);
      if (received.type === frameType.settings && (received.flags & 1) === 0)
        socket.write(frame(frameType.settings, 1, 0));
      for (const watch of watchers) watch();
    }
  });
  socket.on("error", () => {
    // "close" follows.
  });
  socket.once("close", () => {
    closed = true;
    for (const watch of watchers) watch();
  });
  socket.write(Buffer.concat([Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), frame(frameType.settings, 0, 0)]));
  const connection: FrameConnection = {
    socket,
    frames,
    get closed() {
      return closed;
    },
    next(fits) {
      return new Promise((resolve, reject) => {
        const look = () => {
          const found = frames.find(fits);
          if (found === undefined && !closed) return;
          watchers.delete(look);
          if (found === undefined) reject(new Error("the connection ended without such a frame"));
          else resolve(found);
        };
        watchers.add(look);
        look();
      });
    },
    send(...sent) {
      if (!socket.destroyed) socket.write(Buffer.concat(sent));
    },
    async flush(...sent) {
      if (!socket.destroyed) await new Promise<void>((resolve) => socket.write(Buffer.concat(sent), () => resolve()));
    },
    async whenClosed() {
      if (!closed) await once(socket, "close");
    },
  };
  await connection.next(({ type, flags }) => type === frameType.settings && (flags & 1) === 0);
  return connection;
}

/** The code of a GOAWAY or RST_STREAM. */
export function codeOf(received: Frame): number {
  return received.payload.readUInt32BE(received.type === frameType.goaway ? 4 : 0);
}
