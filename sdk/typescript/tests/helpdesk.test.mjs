// The example `helpdesk` in a browser, with scripts and without.

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";

import { chromium } from "playwright-core";

import { BROWSER, until, URL_OF_NODE } from "./support.mjs";

const at = (path) => new URL(path, URL_OF_NODE).href;
const browser = await chromium.launch(BROWSER);
after(() => browser.close());

/** A browser of somebody's own, in which nothing may go wrong that the desk's policy forbids. */
async function visitor(options) {
  const context = await browser.newContext(options);
  context.setDefaultTimeout(10_000);
  const wrong = [];
  context.on("weberror", (error) => wrong.push(String(error.error())));
  context.on("console", (said) => said.type() === "error" && /Content Security Policy|Uncaught/.test(said.text()) && wrong.push(said.text()));
  return { context, wrong, page: await context.newPage() };
}

/** Somebody who has logged in. */
async function person(name, options) {
  const { context, wrong, page } = await visitor(options);
  await page.goto(at("/login"));
  await enter(page, name, name);
  await page.waitForURL(at("/"));
  return { context, wrong, page };
}

async function enter(page, name, password) {
  await page.getByLabel("Name").fill(name);
  await page.getByLabel("Password").fill(password);
  await page.getByRole("button", { name: "Log in" }).click();
}

async function open(page, subject, text) {
  await page.goto(at("/new"));
  await page.getByLabel("What is it about?").fill(subject);
  await page.getByLabel("What happens").fill(text);
  await page.getByRole("button", { name: "Send" }).click();
  await page.waitForURL(/\/tickets\/\d+$/);
  return page.url();
}

const live = (page) => page.waitForSelector("main[data-state=live]");

test("without scripts somebody logs in, is told what is wrong, opens a ticket and is answered", async () => {
  const { context, page, wrong } = await visitor({ javaScriptEnabled: false });
  const answer = await page.goto(at("/"));
  assert.equal(answer.status(), 401, "nobody has logged in");
  await enter(page, "carl", "wrong");
  assert.match(await page.textContent("[role=alert]"), /the name or the password is wrong/);
  assert.equal(await page.getByLabel("Name").inputValue(), "carl", "what was typed stays");
  await enter(page, "carl", "carl");
  await page.waitForURL(at("/"));
  await page.getByRole("link", { name: "New ticket" }).click();
  await page.getByLabel("What is it about?").fill("no");
  await page.getByLabel("What happens").fill("<i>it</i>");
  await page.getByRole("button", { name: "Send" }).click();
  assert.equal(await page.getByLabel("What happens").inputValue(), "<i>it</i>", "what was typed stays");
  assert.ok(await page.textContent("#subject-wrong"), "the field says what is wrong");
  assert.equal(await page.locator("#text-wrong").count(), 0);
  const subject = `<img src=x onerror="document.title='hacked'"> & "quotes"`;
  await page.getByLabel("What is it about?").fill(subject);
  await page.getByRole("button", { name: "Send" }).click();
  await page.waitForURL(/\/tickets\/\d+$/);
  assert.equal(await page.textContent("h1"), subject, "markup is text");
  await page.getByLabel("Reply").fill("one line\nand one more");
  await page.getByRole("button", { name: "Send", exact: true }).click();
  assert.match(await page.textContent("article:last-of-type"), /one line\nand one more/);
  await page.reload();
  assert.equal(await page.locator("article").count(), 2, "what was posted is not posted again");
  assert.deepEqual(wrong, []);
  await context.close();
});

test("who looks on sees a ticket come, what the classifier says of it, and replies", async () => {
  const [anna, carl] = [await person("anna"), await person("carl")];
  await live(anna.page);
  const subject = `The wifi drops ${Date.now()}`;
  const url = await open(carl.page, subject, "The network is slow, and then there is no connection at all.");
  const line = anna.page.locator("#tickets li", { hasText: subject });
  await line.waitFor();
  await line.locator(".topic.network").waitFor();
  await live(carl.page);
  await carl.page.getByLabel("Reply").fill("half a thou");
  await anna.page.goto(url);
  await anna.page.getByLabel("Reply").fill("Look now, please.");
  await anna.page.getByRole("button", { name: "it is done" }).click();
  await carl.page.locator("article", { hasText: "Look now, please." }).waitFor();
  await carl.page.locator(".state.closed").waitFor();
  assert.equal(await carl.page.getByLabel("Reply").inputValue(), "half a thou", "what is being typed stays");
  assert.deepEqual([...anna.wrong, ...carl.wrong], []);
  await Promise.all([anna.context.close(), carl.context.close()]);
});

test("a form that is sent twice at once is one ticket, and one that was not of the page is none", async () => {
  const { context, page } = await person("carl");
  await page.goto(at("/new"));
  const subject = `Twice ${Date.now()}`;
  await page.getByLabel("What is it about?").fill(subject);
  await page.getByLabel("What happens").fill("I click twice.");
  const sent = await page.evaluate(async () => {
    const form = document.querySelector("main form");
    const body = new URLSearchParams(new FormData(form));
    const post = () => fetch(form.action, { method: "POST", body, headers: { accept: "text/html" } });
    return Promise.all([post(), post()].map(async (answer) => [(await answer).status, (await answer).url]));
  });
  assert.deepEqual(sent[0], sent[1]);
  assert.match(sent[0][1], /\/tickets\/\d+$/);
  await page.goto(at("/"));
  assert.equal(await page.locator("#tickets li", { hasText: subject }).count(), 1);
  const status = await page.evaluate(async (subject) => {
    const body = new URLSearchParams({ subject, text: "without the page's token" });
    return (await fetch("/tickets", { method: "POST", body, headers: { accept: "text/html" } })).status;
  }, subject);
  assert.equal(status, 403);
  await context.close();
});

test("a file goes up, comes down as it was, and one past the limit is refused and leaves nothing", async () => {
  const { context, page } = await person("carl");
  await open(page, "A file for the printer", "It is attached.");
  const sent = Buffer.from(Array.from({ length: 300_000 }, (_, at) => at % 251));
  await page.getByLabel("File").setInputFiles({ name: "ü <b>.bin", mimeType: "text/html", buffer: sent });
  await page.getByRole("button", { name: "Upload" }).click();
  const link = page.getByRole("link", { name: "ü <b>.bin" });
  await link.waitFor();
  const url = page.url();
  const got = await context.request.get(new URL(await link.getAttribute("href"), url).href);
  assert.ok(Buffer.from(await got.body()).equals(sent));
  assert.equal(got.headers()["content-disposition"], "attachment");
  await page.getByLabel("File").setInputFiles({ name: "long.bin", mimeType: "text/plain", buffer: Buffer.alloc(6 << 20) });
  await page.getByRole("button", { name: "Upload" }).click();
  await page.getByText("a file has at most 5242880 bytes here").waitFor();
  await page.goto(url);
  assert.equal(await page.locator(".files li").count(), 1);
  await context.close();
});

test("nobody sees the tickets of another, nor anything after logging out", async () => {
  const [anna, carl, dora] = [await person("anna"), await person("carl"), await person("dora")];
  const url = await open(carl.page, "My account is locked", "I forgot my password.");
  assert.equal((await anna.page.goto(url)).status(), 200);
  const refused = await dora.page.goto(url);
  assert.equal(refused.status(), 404);
  assert.equal(await dora.page.locator("h1").textContent(), "Not Found");
  await dora.page.goto(at("/"));
  assert.equal(await dora.page.getByText("My account is locked").count(), 0);
  assert.equal((await dora.page.goto(at("/digest"))).status(), 403);
  // A second window of the same browser: logged out in one, it is at once in the other.
  const second = await carl.context.newPage();
  await second.goto(url);
  await live(second);
  await carl.page.getByRole("button", { name: "Log out" }).click();
  await carl.page.waitForURL(at("/login"));
  await second.getByRole("heading", { name: "Log in" }).waitFor();
  // A cookie that somebody has made.
  const [cookie] = await anna.context.cookies();
  await anna.context.addCookies([{ ...cookie, value: `${cookie.value.slice(0, -2)}zz` }]);
  assert.equal((await anna.page.goto(url)).status(), 401);
  await Promise.all([anna, carl, dora].map(({ context }) => context.close()));
});

test("the scheduler has written the digest", async () => {
  const { context, page } = await person("anna");
  await until("it is written", async () => {
    await page.goto(at("/digest"));
    return (await page.locator("table .topic").count()) > 0;
  });
  await context.close();
});

test("it fits a small window and is to be read in light and dark", async () => {
  const shots = join(import.meta.dirname, "../shots");
  mkdirSync(shots, { recursive: true });
  for (const [colorScheme, width] of [["light", 1000], ["dark", 1000], ["light", 360]]) {
    const { context, page, wrong } = await person("anna", { colorScheme, viewport: { width, height: 760 }, deviceScaleFactor: 2 });
    for (const name of ["tickets", "ticket", "new", "digest"]) {
      if (name === "tickets") await page.goto(at("/"));
      if (name === "ticket") await page.locator("#tickets a").first().click();
      if (name === "new" || name === "digest") await page.goto(at(`/${name}`));
      await page.waitForLoadState("load");
      await page.screenshot({ path: join(shots, `helpdesk-${name}-${colorScheme}-${width}.png`) });
      const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      assert.equal(overflow, 0, `${name} at ${width}`);
    }
    assert.deepEqual(wrong, []);
    await context.close();
  }
});
