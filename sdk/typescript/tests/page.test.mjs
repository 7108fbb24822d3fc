// The page of `quakes --serve`: it is built from its sources, and a browser shows it.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";

import { chromium } from "playwright-core";

import { generate } from "../dist/types/generate.js";
import { BROWSER, until, URL_OF_NODE } from "./support.mjs";

const root = join(import.meta.dirname, "..");
const example = process.env.EDRI_QUAKES;
const blessed = process.env.EDRI_BLESS === "1";
const web = join(root, "web");

/** Compares with a file of the repository, or writes it when asked to. */
function same(file, content, advice) {
  if (blessed) writeFileSync(file, content);
  const is = readFileSync(file, "utf8");
  assert.ok(is === content, `${file} is not what it is made from: ${advice}`);
}

test("its types are those of the node", async () => {
  const events = await (await fetch(new URL("/events", URL_OF_NODE))).json();
  same(join(example, "web/events.ts"), generate(events, "quakes --serve"), "run this test with EDRI_BLESS=1");
});

test("its program is built from its sources, which are right", () => {
  rmSync(web, { recursive: true, force: true });
  cpSync(join(example, "web"), web, { recursive: true });
  const checked = spawnSync(process.execPath, [join(root, "node_modules/typescript/bin/tsc"), "-p", web], { encoding: "utf8" });
  assert.equal(checked.status, 0, checked.stdout);
  const out = join(web, "app.js");
  const built = spawnSync(process.execPath, [join(web, "build.mjs"), out], { encoding: "utf8" });
  assert.equal(built.status, 0, built.stderr);
  same(join(example, "page/app.js"), readFileSync(out, "utf8"), "run this test with EDRI_BLESS=1");
});

const browser = await chromium.launch(BROWSER);
after(() => browser.close());

/** The page in a window, with what it asked for and what went wrong. */
async function shown(options) {
  const context = await browser.newContext({ deviceScaleFactor: 2, ...options });
  const page = await context.newPage();
  const wrong = [];
  page.on("pageerror", (error) => wrong.push(String(error)));
  page.on("request", (request) => new URL(request.url()).host === new URL(URL_OF_NODE).host || request.url().startsWith("data:") || wrong.push(`asks ${request.url()}`));
  await page.goto(URL_OF_NODE);
  await page.waitForFunction(() => document.querySelectorAll("#latest li").length >= 20 && document.querySelectorAll("#managers tr").length > 3);
  return { page, wrong, done: () => context.close() };
}

/** How many pixels of the map have the colour of that style. */
function coloured(page, name) {
  return page.evaluate((name) => {
    const canvas = document.getElementById("world");
    const probe = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    probe.fillStyle = getComputedStyle(document.documentElement).getPropertyValue(name);
    probe.fillRect(0, 0, 1, 1);
    const wanted = probe.getImageData(0, 0, 1, 1).data;
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    let found = 0;
    for (let at = 0; at < data.length; at += 4) if (data[at] === wanted[0] && data[at + 1] === wanted[1] && data[at + 2] === wanted[2]) found += 1;
    return found / (data.length / 4);
  }, name);
}

const looks = {
  light: { viewport: { width: 1180, height: 1060 }, colorScheme: "light" },
  dark: { viewport: { width: 1180, height: 1060 }, colorScheme: "dark" },
  phone: { viewport: { width: 390, height: 844 }, colorScheme: "dark", isMobile: true, hasTouch: true },
};

for (const [name, options] of Object.entries(looks)) {
  test(`it shows quakes, the land and the managers: ${name}`, async () => {
    const { page, wrong, done } = await shown(options);
    const land = await coloured(page, "--land");
    assert.ok(land > 0.15 && land < 0.6, `land covers ${land} of the map`);
    assert.equal(await page.textContent("#state"), "connected");
    const before = Number((await page.textContent("#seen")).replace(/\D/g, ""));
    await until("more come", async () => Number((await page.textContent("#seen")).replace(/\D/g, "")) > before);
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.ok(wide <= 0, `it is ${wide} pixels wider than the window`);
    mkdirSync(join(root, "shots"), { recursive: true });
    await page.screenshot({ path: join(root, `shots/${name}.png`), fullPage: true });
    if (blessed && name === "light") await page.screenshot({ path: join(example, "page.png"), scale: "css", fullPage: true });
    assert.deepEqual(wrong, []);
    await done();
  });
}

test("it is used with a keyboard", async () => {
  const { page, wrong, done } = await shown(looks.light);
  await page.focus("#pause");
  await page.keyboard.press("Enter");
  assert.equal(await page.getAttribute("#pause", "aria-pressed"), "true");
  // What was on its way has come.
  let listed = -1;
  await until("nothing comes any more", async () => {
    const before = listed;
    listed = await page.$$eval("#latest li", (lines) => lines[0].textContent);
    return listed === before;
  });
  for (let tabs = 0; tabs < 5 && !(await page.evaluate(() => document.activeElement.closest("#latest"))); tabs += 1) await page.keyboard.press("Tab");
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("Enter");
  assert.equal(await page.$$eval("#latest button", (buttons) => buttons.findIndex((button) => button.getAttribute("aria-pressed") === "true")), 1);
  assert.match(await page.textContent("#said"), /^Magnitude /);
  assert.deepEqual(wrong, []);
  await done();
});
