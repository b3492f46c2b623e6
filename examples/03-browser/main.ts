import { type Cadre, CadreError, createCadre, createTextView, type SessionHandle, type TurnHandle } from "@cadre/sdk";

const byId = <T extends HTMLElement>(id: string, type: new () => T): T => {
  const element = document.getElementById(id);
  if (!(element instanceof type)) throw new TypeError(`the page lacks #${id}`);
  return element;
};

const url = byId("url", HTMLInputElement);
const key = byId("key", HTMLInputElement);
const message = byId("message", HTMLTextAreaElement);
const cancel = byId("cancel", HTMLButtonElement);
const status = byId("status", HTMLParagraphElement);
const tools = byId("tools", HTMLOListElement);
const answer = byId("answer", HTMLOutputElement);

let session: SessionHandle | undefined;
let turn: TurnHandle | undefined;

// The page's own origin, which Vite forwards to the server: see vite.config.ts.
url.value = new URLSearchParams(location.search).get("url") ?? location.origin;

byId("connect", HTMLFormElement).addEventListener("submit", async (event) => {
  event.preventDefault();
  // The key stays in memory: whoever reloads the page types it again.
  const cadre: Cadre = createCadre({ baseUrl: url.value, apiKey: key.value });
  await attempt(async () => {
    session = await cadre.sessions.create({ agent: "assistant", title: "Example 03" });
    byId("connect", HTMLFormElement).hidden = true;
    byId("ask", HTMLFormElement).hidden = false;
    show("connected");
    message.focus();
  });
});

byId("ask", HTMLFormElement).addEventListener("submit", async (event) => {
  event.preventDefault();
  if (session === undefined) return;
  const text = message.value;
  message.value = "";
  tools.replaceChildren();
  answer.textContent = "";
  const view = createTextView();
  const { send } = session;
  await attempt(async () => {
    turn = await send(text, { onBusy: "interrupt" });
    cancel.disabled = false;
    show("streaming");
    const events = turn.events({ onBreak: () => show("connection lost, connecting again") });
    for await (const sessionEvent of events) {
      const { body } = sessionEvent;
      view.apply(sessionEvent);
      // textContent, never innerHTML: what a model writes is not ours.
      answer.textContent = view.text;
      if (body.case === "toolStarted") tools.append(item(`${body.value.tool} …`));
      if (body.case === "toolEnded")
        tools.append(item(`${body.value.tool} ${body.value.outcome.case === "error" ? "failed" : "done"}`));
      show(body.case === "turnEnded" ? "ended" : `event ${sessionEvent.seq}`);
    }
  });
  cancel.disabled = true;
});

cancel.addEventListener("click", () => void attempt(async () => turn?.cancel()));

async function attempt(work: () => Promise<unknown>): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (!(error instanceof CadreError)) throw error;
    show(`${error.reason}: ${error.message}. ${error.remedy}`);
  }
}

function show(text: string): void {
  status.textContent = text;
}

function item(text: string): HTMLLIElement {
  const element = document.createElement("li");
  element.textContent = text;
  return element;
}
