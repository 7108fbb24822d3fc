// A worker of the TypeScript SDK, for the scenarios of `tests/typescript.rs`.

import { WebSocket } from "ws";

import { Failure, runProcess, serve, Worker } from "../dist/node.js";
import { msgpack } from "../dist/msgpack.js";

const worker = new Worker({ concurrency: Number(process.env.CONCURRENCY ?? 1) });

worker
  .sends("notification", "test.followed")
  .started((cx) => cx.log("info", `started as instance ${cx.place.instance} of ${cx.place.manager}`))
  .notification(
    "test.noted",
    async ({ number }, cx) => {
      if (number === 13 && !cx.redelivered) process.kill(process.pid, "SIGKILL");
      await cx.publish("test.followed", { number });
    },
    { key: "key" },
  )
  .request("test.asked", ({ number }, cx) => {
    if (number === 13) throw new RangeError("thirteen is no number");
    if (number === 14) throw new Failure("unlucky", "nor is fourteen");
    if (number === 15) return cx.request("test.oracle", { number });
    if (number === 16) process.exit(0);
    if (number === 17) return cut();
    return number * 2;
  })
  .tunnel("test.upper", async (_, tunnel) => {
    let count = 0;
    for await (const item of tunnel) {
      await tunnel.send(item.toUpperCase());
      count += 1;
    }
    return count;
  })
  .tunnel("test.bytes", async (_, tunnel) => {
    let size = 0;
    for await (const chunk of tunnel) size += chunk.length;
    return size;
  })
  .request("test.slow", async (_, cx) => {
    await new Promise((resolve) => cx.signal.addEventListener("abort", resolve));
    await cx.publish("test.followed", { number: 4711 });
    return true;
  })
  .request("web.route", ({ number }, cx) => ({ number, caller: cx.caller ?? null }), {
    expose: { routes: ["GET /from-typescript/{number}"] },
    schemas: { event: { type: "object", properties: { number: { type: "integer" } }, required: ["number"] }, output: {} },
  });

/** The connection of now breaks. */
let cut = () => {};

/** Served over WebSocket until it is told to end. */
async function served(url) {
  const stop = new AbortController();
  process.on("SIGTERM", () => stop.abort());
  class Breakable extends WebSocket {
    constructor(...given) {
      super(...given);
      cut = () => {
        this.terminate();
        return new Promise(() => {});
      };
    }
  }
  await serve(worker, url, { manager: "typescript", signal: stop.signal, WebSocket: Breakable });
}

if (process.env.SERVE) {
  await served(process.env.SERVE);
  process.exit(0);
}
console.log("a line on stdout");
await runProcess(worker, process.env.ENCODING === "msgpack" ? { encoding: msgpack } : {});
