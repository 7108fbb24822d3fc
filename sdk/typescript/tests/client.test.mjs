import assert from "node:assert/strict";
import { after, test } from "node:test";

import { connect, EdriError } from "../dist/node.js";
import { msgpack } from "../dist/msgpack.js";
import { json } from "../dist/encoding.js";
import { Network, until, URL_OF_NODE } from "./support.mjs";

const open = [];
after(() => open.forEach((part) => (part.close ?? part.end).call(part)));

async function client(options = {}, url = URL_OF_NODE) {
  const client = await connect(url, options);
  open.push(client);
  return client;
}

async function network() {
  const network = await Network.begin();
  open.push(network);
  return network;
}

/** Reads so many numbers of a feed. */
async function numbers(subscription, count) {
  const numbers = [];
  if (count === 0) return numbers;
  for await (const { payload, missed } of subscription) {
    assert.equal(missed, 0);
    numbers.push(payload.number);
    if (numbers.length === count) break;
  }
  return numbers;
}

const counted = (count) => Array.from({ length: count }, (_, number) => number);

for (const encoding of [json, msgpack]) {
  const named = (text) => `${encoding.subprotocol}: ${text}`;

  test(named("a request has its response, or an error with a code"), async () => {
    const node = await client({ encoding });
    assert.equal(await node.request("web.double", { number: 21 }), 42);
    const failed = await node.request("web.double", { number: 13 }).catch((error) => error);
    assert.ok(failed instanceof EdriError);
    assert.deepEqual([failed.code, failed.isFailure], ["unlucky", true]);
    const unknown = await node.request("web.nothing", {}).catch((error) => error);
    assert.deepEqual([unknown.code, unknown.isFailure], ["unknown_event", false]);
    const wrong = await node.request("web.double", { number: "x" }).catch((error) => error);
    assert.equal(wrong.code, "invalid_payload");
    assert.match(wrong.message, /number/);
  });

  test(named("more requests than the window takes are all answered"), async () => {
    const node = await client({ encoding });
    const answers = await Promise.all(counted(3000).filter((number) => number !== 13).map((number) => node.request("web.double", { number })));
    assert.deepEqual(answers, counted(3000).filter((number) => number !== 13).map((number) => 2 * number));
  });

  test(named("a tunnel carries items in both directions in order"), async () => {
    const node = await client({ encoding });
    const tunnel = await node.open("web.upper", {});
    const sending = (async () => {
      for (const number of counted(1000)) await tunnel.send(`word ${number} é`);
      tunnel.finish();
    })();
    const words = [];
    for await (const word of tunnel) words.push(word);
    await sending;
    assert.deepEqual(words, counted(1000).map((number) => `WORD ${number} É`));
    assert.equal(await tunnel.result, 1000);
  });

  test(named("a subscription by name, by pattern, by key and by conditions gets what it asks for"), async () => {
    const node = await client({ encoding });
    const lane = `lane-${encoding.subprotocol}`;
    const selected = {
      name: node.subscribe("web.tick", { key: lane }),
      pattern: node.subscribe("web.>", { key: lane }),
      conditions: node.subscribe("web.*", { where: { lane: { eq: lane }, number: { gte: 3, lt: 5 } } }),
    };
    for (const subscription of Object.values(selected)) await subscription.ready;
    for (const number of counted(6)) await node.publish("web.tick", { lane, number });
    await node.publish("web.tick", { lane: "another", number: 3 });
    assert.deepEqual(await numbers(selected.name, 6), counted(6));
    assert.deepEqual(await numbers(selected.pattern, 6), counted(6));
    assert.deepEqual(await numbers(selected.conditions, 2), [3, 4]);
  });

  test(named("a broken connection loses nothing and repeats nothing, and calls on it are answered"), async () => {
    const between = await network();
    const node = await client({ encoding }, between.url);
    const lane = `broken-${encoding.subprotocol}`;
    const feed = node.subscribe("web.tick", { key: lane });
    await feed.ready;
    await node.request("web.feed", { lane, count: 500, pause_ms: 2 });
    const reading = numbers(feed, 500);
    const slow = node.request("web.later", { pause_ms: 700, number: 5 });
    for (const pause of [150, 150, 150]) {
      await new Promise((resolve) => setTimeout(resolve, pause));
      between.cut();
      await until("the client is away", () => node.state === "away");
      between.mend();
      await until("the client is back", () => node.state === "connected");
    }
    assert.deepEqual(await reading, counted(500));
    assert.equal(await slow, 5);
  });
}

test("a request that is given up is cancelled at its worker", async () => {
  const node = await client();
  const before = await node.request("web.cancelled", {});
  const patience = new AbortController();
  const waiting = node.request("web.slow", {}, { signal: patience.signal });
  await until("the worker has it", async () => (await node.request("web.begun", {})) > 0);
  patience.abort();
  await assert.rejects(waiting, { name: "AbortError" });
  await until("the worker was told", async () => (await node.request("web.cancelled", {})) === before + 1);
});

test("a request that takes too long times out", async () => {
  const node = await client();
  await assert.rejects(node.request("web.slow", {}, { timeout: 50 }), { code: "timed_out" });
});

test("a subscription that is left ends at the node", async () => {
  const node = await client();
  const before = await node.request("web.subscriptions", {});
  const feed = node.subscribe("web.tick", { key: "left" });
  await feed.ready;
  assert.equal(await node.request("web.subscriptions", {}), before + 1);
  feed.close();
  await until("it is gone", async () => (await node.request("web.subscriptions", {})) === before);
});

test("a subscription that is refused says why", async () => {
  const node = await client();
  const read = async () => {
    for await (const event of node.subscribe("web.double")) assert.fail(event);
  };
  await assert.rejects(read, (error) => error instanceof EdriError && error.code === "wrong_kind");
});

test("a tunnel that nobody reads makes its sender wait, and one that is dropped ends its worker", async () => {
  const node = await client();
  const tunnel = await node.open("web.endless", {});
  const first = await tunnel.receive();
  assert.equal(first, 0);
  let sent = await node.request("web.sent", {});
  await until("the worker waits", async () => {
    const before = sent;
    await new Promise((resolve) => setTimeout(resolve, 50));
    sent = await node.request("web.sent", {});
    return sent === before;
  });
  assert.ok(sent < 500, `${sent} were sent to nobody`);
  for await (const item of tunnel) if (item === 200) break;
  await assert.rejects(tunnel.result);
  await until("the worker has ended", async () => (await node.request("web.endless_open", {})) === 0);
});

test("a subscription begins in the past, and goes on there", async () => {
  const node = await client();
  for (const number of counted(10)) await node.publish("web.tick", { lane: "past", number });
  const late = node.subscribe("web.tick", { key: "past", last: 4 });
  const positions = [];
  for await (const { payload, position } of late) {
    positions.push(position);
    if (payload.number === 9) break;
  }
  assert.equal(positions.length, 4);
  const since = node.subscribe("web.tick", { key: "past", since: positions[1] });
  assert.deepEqual(await numbers(since, 2), [8, 9]);
  const nothing = node.subscribe("web.other", { last: 1 });
  await assert.rejects(nothing.ready, EdriError);
});

test("a network that is silent is noticed, and the session goes on", async () => {
  const between = await network();
  const node = await client({}, between.url);
  const feed = node.subscribe("web.tick", { key: "silent" });
  await feed.ready;
  between.silence();
  const direct = await client();
  for (const number of counted(20)) await direct.publish("web.tick", { lane: "silent", number });
  await until("the client has noticed", () => node.state === "away");
  between.mend();
  assert.deepEqual(await numbers(feed, 20), counted(20));
});

test("many reconnects cost no memory", async () => {
  const rounds = Number(process.env.EDRI_RECONNECTS ?? 60);
  const between = await network();
  const node = await client({}, between.url);
  const feed = node.subscribe("web.tick", { key: "often" });
  await feed.ready;
  const direct = await client();
  let seen = 0;
  const round = async () => {
    between.cut();
    await until("the client is away", () => node.state === "away");
    await direct.publish("web.tick", { lane: "often", number: seen });
    between.mend();
    assert.deepEqual(await numbers({ [Symbol.asyncIterator]: () => ({ next: () => feed[Symbol.asyncIterator]().next() }) }, 1), [seen]);
    seen += 1;
  };
  const heap = () => {
    globalThis.gc?.();
    return process.memoryUsage().heapUsed;
  };
  for (let warm = 0; warm < 10; warm += 1) await round();
  const before = heap();
  for (let rest = 0; rest < rounds; rest += 1) await round();
  const grown = heap() - before;
  assert.ok(grown < 2 << 20, `${grown} bytes more after ${rounds} reconnects`);
});

test("a node that is not there, or is none, is told at once", async () => {
  await assert.rejects(connect("ws://127.0.0.1:1"), { code: "unreachable" });
  await assert.rejects(connect("ftp://127.0.0.1"), TypeError);
});
