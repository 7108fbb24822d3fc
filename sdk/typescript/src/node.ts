import { WebSocket } from "ws";

import { Client, connect as connectAnywhere, type ConnectOptions, type SocketConstructor } from "./client.js";
import type { AnyEvents } from "./events.js";

export * from "./index.js";

/** Connects to a node; see `connect` of browsers. Node 20 has no `WebSocket` of its own: that of `ws` is used. */
export function connect<E extends object = AnyEvents>(url: string, options: ConnectOptions = {}): Promise<Client<E>> {
  return connectAnywhere<E>(url, { WebSocket: WebSocket as unknown as SocketConstructor, ...options });
}
