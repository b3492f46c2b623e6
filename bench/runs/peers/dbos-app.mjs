// The application that DBOS makes durable: a workflow with steps, each of which
// returns what it was given, as Cadre's tool `echo` does. DBOS is a library, so
// the workflows are started by a request to the application itself, which is
// answered when the workflow has ended. Its port, and then nothing else, goes
// to the parent; it ends with the parent.
import { createServer } from "node:http";
import { DBOS } from "@dbos-inc/dbos-sdk";

const steps = 10;
const [systemDatabaseUrl, poolSize] = process.argv.slice(2);

async function run(input) {
  let output = input;
  for (let step = 1; step <= steps; step++) {
    const before = output;
    output = await DBOS.runStep(async () => ({ text: before.text, step }), { name: `step ${step}` });
  }
  return output;
}
const workflow = DBOS.registerWorkflow(run, { name: "run" });

DBOS.setConfig({
  name: "cadre-bench",
  applicationVersion: "1",
  systemDatabaseUrl,
  systemDatabasePoolSize: Number(poolSize),
  logLevel: "warn",
});
await DBOS.launch();

const server = createServer((request, response) => {
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", () => {
    workflow(JSON.parse(Buffer.concat(chunks).toString())).then(
      (output) => response.setHeader("content-type", "application/json").end(JSON.stringify(output)),
      (error) => response.writeHead(500).end(String(error)),
    );
  });
}).listen(0, "127.0.0.1", () => process.send(server.address().port));

process.on("disconnect", () => {
  void DBOS.shutdown().finally(() => process.exit(0));
});
