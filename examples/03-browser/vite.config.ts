import { defineConfig } from "vite";

// The server lets no other origin call it unless CADRE_CORS_ORIGINS names it. So
// the page calls its own origin, and Vite hands those calls on.
const target = process.env.CADRE_URL ?? "http://127.0.0.1:8010";

export default defineConfig({
  root: import.meta.dirname,
  server: { host: "127.0.0.1", proxy: { "^/cadre\\.": { target } } },
  preview: { host: "127.0.0.1", proxy: { "^/cadre\\.": { target } } },
});
