import { readFileSync } from "node:fs";
import { createCadre } from "@cadre/sdk";

const cadre = createCadre({
  baseUrl: process.env.CADRE_URL ?? "http://127.0.0.1:8010",
  apiKey: process.env.CADRE_API_KEY ?? readFileSync(".cadre/admin.key", "utf8").trim(),
});

const session = await cadre.sessions.create({ agent: "assistant" });
for await (const { body } of session.stream(process.argv[2] ?? "Hello! What can you do?")) {
  if (body.case === "textDelta") process.stdout.write(body.value.text);
  if (body.case === "turnEnded") process.stdout.write("\n");
}
