import assert from "node:assert/strict";
import { join } from "node:path";
import { after, test } from "node:test";

import { build } from "esbuild";
import { chromium } from "playwright-core";

import { connect } from "../dist/node.js";
import { BROWSER, Network, until, URL_OF_NODE } from "./support.mjs";

const root = join(import.meta.dirname, "..");
/** The SDK for a browser, in one file, as somebody's page would have it. */
const bundle = await build({ entryPoints: [join(root, "dist/index.js")], bundle: true, minify: true, format: "esm", outfile: join(root, "tests/pages/sdk.js"), metafile: true });

const browser = await chromium.launch(BROWSER);
after(() => browser.close());

async function page(url) {
  const page = await browser.newPage();
  const errors = [];
  page.on("pageerror", (error) => errors.push(error));
  await page.goto(url);
  await page.waitForFunction(() => document.title === "ready");
  return { page, errors };
}

const read = (page) => page.$$eval("#numbers li", (lines) => lines.map((line) => line.textContent));
const counted = (count) => Array.from({ length: count }, (_, number) => String(number));

test("the SDK of a browser is small", () => {
  const [{ bytes }] = Object.values(bundle.metafile.outputs);
  assert.ok(bytes < 25_000, `${bytes} bytes`);
  console.log(`the SDK for browsers has ${bytes} bytes`);
});

test("a page whose network is away for ten seconds has every number once, in order", async () => {
  const network = await Network.begin();
  const direct = await connect(URL_OF_NODE);
  try {
    const { page: tab, errors } = await page(`${network.url}/?lane=away`);
    await direct.request("web.feed", { lane: "away", count: 600, pause_ms: 20 });
    await until("numbers come", async () => (await read(tab)).length > 20);
    network.cut();
    await tab.waitForFunction(() => document.getElementById("state").textContent === "away");
    await new Promise((resolve) => setTimeout(resolve, 10_000));
    network.mend();
    await tab.waitForFunction(() => document.querySelectorAll("#numbers li").length >= 600);
    assert.deepEqual(await read(tab), counted(600));
    assert.deepEqual(errors, []);
  } finally {
    direct.close();
    network.end();
  }
});

test("a page that its browser takes offline goes on where it was", async () => {
  const context = await browser.newContext();
  const tab = await context.newPage();
  const direct = await connect(URL_OF_NODE);
  try {
    await tab.goto(`${URL_OF_NODE}/?lane=offline`);
    await tab.waitForFunction(() => document.title === "ready");
    await direct.request("web.feed", { lane: "offline", count: 100, pause_ms: 20 });
    await until("numbers come", async () => (await read(tab)).length > 5);
    await context.setOffline(true);
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    await context.setOffline(false);
    await tab.waitForFunction(() => document.querySelectorAll("#numbers li").length >= 100);
    assert.deepEqual(await read(tab), counted(100));
  } finally {
    direct.close();
    await context.close();
  }
});
