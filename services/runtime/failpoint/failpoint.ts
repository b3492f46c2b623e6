/**
 * The places where a durable run can be hurt from outside: every write to a
 * store and every call of a peer that its progress depends on. A test's process
 * installs a hook that ends the process there, fails the call, or loses its
 * answer; in any other process `boundary` only calls.
 */
export const failpoints = {
  "journal.append": "a batch of entries and events is committed",
  "journal.position": "a writer looks up how far it is after an outcome got lost",
  "journal.heads": "the stored heads are compared with what was sent after an outcome got lost",
  "journal.load": "a session with its open runs is read by its owner",
  "journal.list-open": "the open runs of shards that came are listed",
  "session.create": "a session is stored",
  "run.load": "a run of a graph, with its children, is read by its owner",
  "run.list-running": "the runs of graphs are listed that go on in shards that came",
  "run.list-due": "runs are listed whose time to wake has come",
  "run.next-due": "the time is looked for at which the next run wakes",
  "run.park": "a run whose journal is damaged is parked",
  "payload.keep": "a value that is too large for an entry is stored",
  "payload.load": "such a value is read",
  "writer.register": "a process becomes a writer",
  "writer.claim": "the lease is renewed, dead writers are fenced and free shards taken",
  "writer.release": "shards are given up to others",
  "writer.retire": "a process that stops gives everything up",
  "writer.purge": "what nobody needs any more is removed",
  "inbox.put": "a command is stored for the owner of its shard",
  "inbox.reply": "the answer to a command is looked for",
  "inbox.waiting": "an owner reads the commands that wait for it",
  "principal.check": "credentials are asked whether a principal may still act",
  "model.call": "a model is asked, and its first chunk comes",
  "tool.resolve": "the tools service is asked what a run's tools are",
  "tool.execute": "a step's tool is called, and its outcome comes",
  "tool.cancel": "a step's tool is told to stop",
  "relay.read": "entries that the bus does not have are read",
  "relay.publish": "facts are handed to the bus",
  "relay.mark": "a log is marked as relayed",
  "call.begin": "a tool's call is recorded, or joined",
  "call.dispatch": "a tool's call is given to a worker",
  "call.read": "a tool's call is read for the one who waits for it",
  "call.cancel": "a tool's call is asked to stop",
  "call.end-cancelled": "a cancelled call ends though its worker did not answer",
  "call.output": "what a tool printed is stored",
  "call.end": "a worker's report of an outcome is stored",
  "call.sweep": "calls whose time is over are ended",
  "worker.connect": "a worker is registered, or comes back",
  "worker.disconnect": "the end of a worker's stream is recorded",
  "worker.heartbeat": "a worker's lease is renewed",
  "worker.news": "what a worker has to be told of is read",
  "worker.fill": "a worker's free places are filled",
  "worker.end-expired": "workers without a lease are removed, and their calls handed out again",
} as const;

/** The name of such a place. */
export type Failpoint = keyof typeof failpoints;

/** What a test's process does at these places. */
export type FailpointHook = <T>(name: Failpoint, call: () => Promise<T>) => Promise<T>;

let hook: FailpointHook | undefined;

/** Makes a call at a named place. */
export function boundary<T>(name: Failpoint, call: () => Promise<T>): Promise<T> {
  return hook === undefined ? call() : hook(name, call);
}

/**
 * An object some of whose methods are calls at named places. Without a hook it
 * is the object itself, so that nothing stands on its way.
 *
 * @param places the methods, each of which returns a promise
 */
export function withBoundaries<T extends object>(
  target: T,
  places: { readonly [Method in keyof T & string]?: Failpoint },
): T {
  if (hook === undefined) return target;
  return new Proxy(target, {
    get(object, property) {
      const value: unknown = Reflect.get(object, property, object);
      if (typeof value !== "function") return value;
      const name = (places as Readonly<Record<string | symbol, Failpoint | undefined>>)[property];
      if (name === undefined) return value.bind(object) as unknown;
      return (...given: unknown[]) => boundary(name, async () => (await value.apply(object, given)) as unknown);
    },
  });
}

/** Has all places led through a hook, before anything is composed. For a test's process only. */
export function installFailpointHook(install: FailpointHook): void {
  hook = install;
}
