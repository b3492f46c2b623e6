import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { busTopics } from "../../services/runtime/bus/topics.ts";
import { ownTopicsFile, readTopicsFile } from "./topics-file.ts";

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "cadre-topics-"));
});
afterAll(() => rm(directory, { recursive: true, force: true }));

async function changed(change: (text: string) => string): Promise<string> {
  const path = join(directory, "topics.yaml");
  await writeFile(path, change(await readFile(ownTopicsFile, "utf8")));
  return path;
}

test("the file that comes with Cadre declares exactly the topics that the program knows", async () => {
  const declared = await readTopicsFile(ownTopicsFile);
  expect(declared.map(({ name, partitions }) => ({ name, partitions }))).toEqual(busTopics);
  for (const { replication, settings } of declared) {
    expect(replication).toBe(3);
    expect(settings["min.insync.replicas"]).toBe("2");
  }
  expect(declared[0]?.settings["retention.ms"]).toBe("604800000");
});

test("a single broker needs one flag", async () => {
  for (const { replication, settings } of await readTopicsFile(ownTopicsFile, 1)) {
    expect(replication).toBe(1);
    expect(settings["min.insync.replicas"]).toBe("1");
  }
});

test.each([
  ["another number of partitions", "partitions: 12", "partitions: 6", /conversation.turns.v1 has 12 partitions, not 6/],
  [
    "another name",
    "name: agent.runs.v1,",
    "name: agent.runs.v2,",
    /agent.runs.v1 with 12 .* missing.*agent.runs.v2 is no/,
  ],
  ["what nobody knows", "retention_days: 7", "retention_days: 7, colour: red", /colour/],
  ["what is no YAML", "replication: 3", "replication: [", /topics\.yaml: /],
])("refuses a file with %s", async (_, from, to, told) => {
  const path = await changed((text) => text.replace(from, to));
  await expect(readTopicsFile(path)).rejects.toMatchObject({ exitCode: 78, message: expect.stringMatching(told) });
});
