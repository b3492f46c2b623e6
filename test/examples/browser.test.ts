import { join } from "node:path";
import { type Browser, chromium, type Page } from "playwright-core";
import { createServer, type ViteDevServer } from "vite";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type RunningCadre, startCadre } from "../support/cadre.ts";

const root = join(import.meta.dirname, "../../examples/03-browser");
let server: RunningCadre;
let vite: ViteDevServer;
let browser: Browser;

beforeAll(async () => {
  server = await startCadre();
  process.env.CADRE_URL = server.url;
  vite = await createServer({
    root,
    configFile: join(root, "vite.config.ts"),
    server: { port: 0, host: "127.0.0.1" },
    // It tells each call that finds no server, and the last test kills it.
    logLevel: "silent",
  });
  await vite.listen();
  browser = await chromium.launch({
    executablePath: "/usr/bin/chromium",
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
}, 120_000);
afterAll(async () => {
  delete process.env.CADRE_URL;
  await browser?.close();
  await vite?.close();
  await server?.dispose();
});

async function visit(): Promise<Page> {
  const address = vite.httpServer?.address();
  if (address === null || typeof address !== "object") throw new TypeError("vite does not listen");
  const page = await browser.newPage();
  await page.goto(`http://127.0.0.1:${address.port}/`);
  return page;
}

async function open(): Promise<Page> {
  const page = await visit();
  await page.fill("#key", server.adminKey);
  await page.click("#connect button");
  await page.waitForSelector("#ask:not([hidden])");
  return page;
}

async function ask(page: Page, text: string): Promise<void> {
  await page.fill("#message", text);
  await page.click("#ask button");
}

const statusIs = (page: Page, text: string) =>
  page.waitForFunction((wanted) => document.querySelector("#status")?.textContent === wanted, text);

test("a page streams an answer while it is being made", async () => {
  const page = await open();
  await ask(page, `say ${"one two three four five six seven eight nine ten ".repeat(5)}`);
  await statusIs(page, "ended");
  expect(await page.textContent("#answer")).toContain("nine ten one two");
  await page.close();
});

test("a page shows a tool's call", async () => {
  const page = await open();
  await ask(page, 'call calculator {"expression":"6 * 7"}');
  await statusIs(page, "ended");
  expect(await page.textContent("#tools")).toContain("calculator done");
  expect(await page.textContent("#answer")).toContain("42");
  await page.close();
});

test("what a model writes is text to the page, never markup", async () => {
  const page = await open();
  await ask(page, "say <img src=x onerror=globalThis.pwned=1>");
  await statusIs(page, "ended");
  expect(await page.textContent("#answer")).toContain("<img");
  expect(await page.evaluate(() => "pwned" in globalThis)).toBe(false);
  await page.close();
});

test("a wrong key is told, and nothing else happens", async () => {
  const page = await visit();
  await page.fill("#key", "wrong");
  await page.click("#connect button");
  await page.waitForFunction(() => document.querySelector("#status")?.textContent?.startsWith("UNAUTHENTICATED"));
  await page.close();
});

test("the answer goes on where it was when the server was killed in the middle of it", async () => {
  const page = await open();
  await ask(page, "say one two three\nwait 3s\nsay four five six");
  await page.waitForFunction(() => document.querySelector("#answer")?.textContent?.includes("three"));
  await server.kill();
  await statusIs(page, "connection lost, connecting again");
  server = await server.restart();
  await statusIs(page, "ended");
  expect(await page.textContent("#answer")).toMatch(/^one two three\s*four five six$/);
  await page.close();
}, 90_000);
