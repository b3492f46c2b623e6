/**
 * Commands between processes: what comes to one that does not own the root is
 * stored, executed by the owner, and answered through the store. A command is
 * answered by the owner or stays in the inbox; the process that took it never
 * answers in the owner's place.
 */
import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { type Command, type CommandReply, CommandSchema } from "@cadre/gen/cadre/orchestrator/journal/v1/command_pb";
import { AppError } from "../../runtime/errors/app-error.ts";
import { newId, toUuid } from "../../runtime/ids/id.ts";
import type { Logger } from "../../runtime/log/log.ts";
import { untilAborted } from "../../runtime/wait/until-aborted.ts";
import type { InboxStore } from "../store/inbox-store.ts";
import { noteOf } from "../store/postgres-append-store.ts";
import { decodeReply } from "./command-reply.ts";

export interface CommandInboxOptions {
  readonly inbox: InboxStore;
  /** The shards of this process. */
  readonly shards: () => readonly number[];
  /** Begins to execute a command of the inbox; its answer is stored. Gives up on roots that are gone or elsewhere. */
  readonly execute: (rootUuid: string, command: Command, commandId: string) => Promise<void>;
  /** Aborts when the engine stops. */
  readonly stopping: AbortSignal;
  readonly log: Logger;
}

const page = 256;

/** The way of commands to the owners of their roots. */
export class CommandInbox {
  readonly #options: CommandInboxOptions;
  /** Who waits for an answer, by the command's note. */
  readonly #waiting = new Map<string, Set<() => void>>();
  #reading: Promise<void> | undefined;
  #again = false;

  constructor(options: CommandInboxOptions) {
    this.#options = options;
  }

  /**
   * Has a command executed by whoever owns its root, now or soon.
   *
   * @throws AppError why it was refused; with the signal, although it may still be executed; SHUTTING_DOWN
   */
  async send(orgUuid: string, rootUuid: string, command: Command, signal: AbortSignal): Promise<CommandReply> {
    const { inbox, stopping } = this.#options;
    const commandId = toUuid("req", newId("req"));
    let wake: () => void = () => undefined;
    const note = noteOf(commandId);
    const woken = (): void => wake();
    const waiting = this.#waiting.get(note) ?? new Set();
    waiting.add(woken);
    this.#waiting.set(note, waiting);
    try {
      await inbox.put(orgUuid, { commandId, rootId: rootUuid, body: toBinary(CommandSchema, command) });
      // The owner may be this process by now, or nobody yet.
      void this.read();
      for (;;) {
        const told = new Promise<void>((resolve) => {
          wake = resolve;
        });
        const reply = await inbox.reply(commandId);
        if (reply !== undefined) return decodeReply(reply);
        if (stopping.aborted) throw new AppError("SHUTTING_DOWN", "the process is shutting down");
        await untilAborted(told, signal);
      }
    } finally {
      waiting.delete(woken);
      if (waiting.size === 0) this.#waiting.delete(note);
    }
  }

  /** A command was answered, as its note says. */
  answered(note: string): void {
    for (const wake of this.#waiting.get(note) ?? []) wake();
  }

  /** Commands may have been answered: whoever waits looks. */
  lookAgain(): void {
    for (const note of [...this.#waiting.keys()]) this.answered(note);
  }

  /** Executes what waits for the shards that are owned. Calls meanwhile share one more look. */
  read(): Promise<void> {
    if (this.#reading !== undefined) {
      this.#again = true;
      return this.#reading;
    }
    this.#reading = this.#readOnce()
      .catch((error: unknown) => {
        this.#options.log.warn({ err: error }, "the inbox cannot be read now");
      })
      .finally(() => {
        this.#reading = undefined;
        if (this.#again && !this.#options.stopping.aborted) {
          this.#again = false;
          void this.read();
        }
      });
    return this.#reading;
  }

  async #readOnce(): Promise<void> {
    const { inbox, shards, execute } = this.#options;
    const owned = shards();
    if (owned.length === 0) return;
    for (const { commandId, rootId, body } of await inbox.waiting(owned, page)) {
      await execute(rootId, fromBinary(CommandSchema, body), commandId);
    }
  }
}
