import { WebSocket } from "ws";

import { Client, connect as connectAnywhere, type ConnectOptions, type SocketConstructor } from "./client.js";
import type { AnyEvents } from "./events.js";
import { serve as serveAnywhere, type ServeOptions } from "./serve.js";
import type { Worker } from "./worker.js";

export * from "./index.js";
export { runProcess } from "./process.js";

// Node 20 has no WebSocket of its own.
const socket = { WebSocket: WebSocket as unknown as SocketConstructor };

/** Connects to a node; see `connect` of browsers. */
export function connect<E extends object = AnyEvents>(url: string, options: ConnectOptions = {}): Promise<Client<E>> {
  return connectAnywhere<E>(url, { ...socket, ...options });
}

/** Serves a worker over WebSocket; see `serve` of browsers. */
export function serve(worker: Worker, url: string, options: ServeOptions): Promise<void> {
  return serveAnywhere(worker, url, { ...socket, ...options });
}
