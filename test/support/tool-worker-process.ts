// A worker in a process of its own, to be killed. Arguments: the server's URL,
// a file that it writes to, and the headers to send, as JSON. Its one tool,
// `witness`, appends a line every 20 ms until it is told to stop; told by the
// argument `deaf` it does not listen.
import { appendFileSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { ToolWorkerService } from "@cadre/gen/cadre/tools/v1/tool_worker_pb";
import { createClient, type Interceptor } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { startTestWorker } from "./test-worker.ts";
import { witness } from "./witness-tool.ts";

const [url = "", file = "", headers = "{}"] = process.argv.slice(2);
const authenticate: Interceptor = (next) => (request) => {
  for (const [name, value] of Object.entries(JSON.parse(headers) as Record<string, string>)) {
    request.header.set(name, value);
  }
  return next(request);
};
const transport = createConnectTransport({ baseUrl: url, httpVersion: "1.1", interceptors: [authenticate] });

await startTestWorker({
  client: createClient(ToolWorkerService, transport),
  tools: [witness],
  name: `process ${process.pid}`,
  concurrency: 10,
  async handle(input, { call, signal }) {
    for (;;) {
      if (input["deaf"] !== true) signal.throwIfAborted();
      appendFileSync(file, `${call.idempotencyKey} ${call.attempt} ${process.pid}\n`);
      await delay(20);
    }
  },
});
process.stdout.write("ready\n");
