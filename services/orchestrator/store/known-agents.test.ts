import { create } from "@bufbuild/protobuf";
import { type Agent, AgentDefinitionSchema, AgentSchema } from "@cadre/gen/cadre/orchestrator/v1/agent_pb";
import { expect, test } from "vitest";
import { AppError } from "../../runtime/errors/app-error.ts";
import { toDatabaseError } from "../../runtime/postgres/database-error.ts";
import type { AgentStore } from "./agent-store.ts";
import { KnownAgents } from "./known-agents.ts";

const org = "00000000-0000-7000-8000-000000000001";

/** One agent that is stored, and how often it was looked up. */
function storedAgent() {
  const definition = create(AgentDefinitionSchema, { name: "clerk" });
  const state = { revision: 1, looks: 0, answer: (): Promise<unknown> => Promise.resolve(), nowMs: 0 };
  const read = (): Agent => create(AgentSchema, { definition, revision: state.revision });
  const look = async (): Promise<Agent> => {
    state.looks += 1;
    const found = read();
    await state.answer();
    return found;
  };
  const store: AgentStore = {
    find: look,
    findByName: look,
    list: async () => [read()],
    ensure: async () => read(),
    register: async () => {
      state.revision += 1;
      await state.answer();
      return read();
    },
  };
  const known = new KnownAgents(store, () => state.nowMs);
  return { state, known, register: () => known.register(org, "id", definition, "digest") };
}

test("an agent is looked up once, by its name and by its id, for each org", async () => {
  const { known, state } = storedAgent();
  for (let time = 0; time < 3; time += 1) {
    await known.findByName(org, "clerk");
    await known.find(org, "clerk");
    await known.findByName("another org", "clerk");
  }
  expect(state.looks).toBe(3);
});

test("a start that follows a registration has the new revision", async () => {
  const { known, register } = storedAgent();
  expect(await known.findByName(org, "clerk")).toMatchObject({ revision: 1 });
  await register();
  expect(await known.findByName(org, "clerk")).toMatchObject({ revision: 2 });
});

test("what was looked up while the agent was changed is not remembered", async () => {
  const { known, state, register } = storedAgent();
  const { promise, resolve } = Promise.withResolvers<void>();
  state.answer = () => promise;
  const before = known.findByName(org, "clerk");
  state.answer = () => Promise.resolve();
  await register();
  resolve();
  expect(await before).toMatchObject({ revision: 1 });
  expect(await known.findByName(org, "clerk")).toMatchObject({ revision: 2 });
});

test("after a registration whose outcome is unknown, agents are looked up until it has surely ended", async () => {
  const { known, state, register } = storedAgent();
  state.answer = () => Promise.reject(toDatabaseError(Object.assign(new Error("gone"), { syscall: "read" }), true));
  await expect(register()).rejects.toMatchObject({ reason: "UNAVAILABLE" });
  state.answer = () => Promise.resolve();
  await known.findByName(org, "clerk");
  // It comes about only now.
  state.revision = 7;
  expect(await known.findByName(org, "clerk")).toMatchObject({ revision: 7 });
  state.nowMs += 60_000;
  await known.findByName(org, "clerk");
  await known.findByName(org, "clerk");
  expect(state.looks).toBe(3);
});

test("a registration that was refused changes nothing that is remembered later", async () => {
  const { known, state, register } = storedAgent();
  state.answer = () => Promise.reject(new AppError("MODEL_NOT_FOUND", "no such model"));
  await expect(register()).rejects.toMatchObject({ reason: "MODEL_NOT_FOUND" });
  state.answer = () => Promise.resolve();
  await known.findByName(org, "clerk");
  await known.findByName(org, "clerk");
  expect(state.looks).toBe(1);
});
