import { defineConfig, type ProxyOptions } from "vite";

// The server lets no other origin call it unless CADRE_CORS_ORIGINS names it. So
// the page calls its own origin, and Vite hands those calls on.
const calls: ProxyOptions = {
  target: process.env.CADRE_URL ?? "http://127.0.0.1:8010",
  configure(proxy) {
    // When the server dies in the middle of a stream, the page must hear of it
    // at once. The proxy would hold the page's half open, until the SDK misses
    // the keepalives.
    proxy.on("proxyRes", (incoming, _request, outgoing) => {
      incoming.once("close", () => {
        if (!incoming.complete) outgoing.destroy();
      });
    });
  },
};

export default defineConfig({
  root: import.meta.dirname,
  server: { host: "127.0.0.1", proxy: { "^/cadre\\.": calls } },
  preview: { host: "127.0.0.1", proxy: { "^/cadre\\.": calls } },
});
