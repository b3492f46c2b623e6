import pg from "pg";
import { afterEach, beforeEach, expect, test } from "vitest";
import { createTestDatabase, type TestDatabase } from "./postgres.ts";
import { type CommitKind, type PostgresCutProxy, startPostgresCutProxy } from "./postgres-cut-proxy.ts";

let database: TestDatabase;
let direct: pg.Client;
let proxy: PostgresCutProxy;
let wanted: CommitKind | undefined;

beforeEach(async () => {
  database = await createTestDatabase();
  direct = new pg.Client(database.url);
  await direct.connect();
  await direct.query(`create table t (n int primary key);
    create function append(n int) returns setof int language sql as 'insert into t values (n) returning n'`);
  const { hostname: host, port } = new URL(database.url);
  wanted = undefined;
  proxy = await startPostgresCutProxy({ host, port: Number(port) }, (kind) => kind === wanted);
});
afterEach(async () => {
  await proxy.close();
  await direct.end();
  await database.drop();
});

async function connect(): Promise<pg.Client> {
  const url = new URL(database.url);
  url.port = String(proxy.port);
  const client = new pg.Client(url.href);
  client.on("error", () => undefined); // cut
  await client.connect();
  return client;
}

async function stored(): Promise<number[]> {
  const { rows } = await direct.query<{ n: number }>("select n from t order by n");
  return rows.map(({ n }) => n);
}

test.each<[string, pg.QueryConfig]>([
  ["without a name", { text: "select * from append($1)" }],
  ["that was prepared", { name: "append", text: "/* any */ select * from append($1)" }],
])("the answer of a statement %s is kept when it is committed", async (_, statement) => {
  const client = await connect();
  await client.query({ ...statement, values: [1] });
  expect(proxy.cuts).toEqual({ append: 0, commit: 0 });
  wanted = "append";
  await expect(client.query({ ...statement, values: [2] })).rejects.toThrow(/reset|terminated/i);
  expect(proxy.cuts).toEqual({ append: 1, commit: 0 });
  expect(await stored()).toEqual([1, 2]);
});

test("the answer of a transaction is kept when it is committed; what fails passes", async () => {
  const client = await connect();
  wanted = "append";
  await client.query("insert into t values (1)");
  await expect(client.query("select * from append($1)", [1])).rejects.toMatchObject({ code: "23505" });
  wanted = "commit";
  await client.query("begin");
  await client.query("insert into t values (2)");
  await expect(client.query("commit")).rejects.toThrow(/reset|terminated/i);
  expect(proxy.cuts).toEqual({ append: 0, commit: 1 });
  expect(await stored()).toEqual([1, 2]);
});
