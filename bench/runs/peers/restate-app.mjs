// The service that Restate runs: a handler with durable steps, each of which
// returns what it was given, as Cadre's tool `echo` does. Its port, and then
// nothing else, goes to the parent; it ends with the parent.
import { createServer } from "node:http2";
import * as restate from "@restatedev/restate-sdk";

const steps = 10;

const runs = restate.service({
  name: "runs",
  handlers: {
    run: async (ctx, input) => {
      let output = input;
      for (let step = 1; step <= steps; step++) {
        const before = output;
        output = await ctx.run(`step ${step}`, () => ({ text: before.text, step }));
      }
      return output;
    },
  },
});

const handler = restate.createEndpointHandler({ services: [runs], logger: () => {} });
const server = createServer(handler).listen(0, "127.0.0.1", () => process.send(server.address().port));
process.on("disconnect", () => process.exit(0));
