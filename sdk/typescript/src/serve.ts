import { type ConnectOptions, type Socket, type SocketConstructor, socketUrl } from "./client.js";
import { json, type Message } from "./encoding.js";
import { EdriError, readFault } from "./errors.js";
import { Life } from "./life.js";
import type { Worker } from "./worker.js";

export interface ServeOptions extends Omit<ConnectOptions, "onState"> {
  /** The name of the manager that this is a worker of. */
  manager: string;
  /** Ends the service: what is in hand is finished, and the node is told. */
  signal?: AbortSignal;
  /** Told when the node has lost this worker, which tries again after a while. */
  onLost?: (error: EdriError) => void;
}

const WAIT_MIN = 100;
const WAIT_MAX = 5_000;
const OPEN = 1;
/** Another attempt would not do better. */
const FINAL = new Set([
  "unauthorized", "forbidden", "forbidden_origin", "unsupported_version", "unsupported_protocol", "wrong_role",
  "wrong_handlers", "invalid_name", "name_taken", "start_refused",
]);

/**
 * Serves a worker over WebSocket, until the node says goodbye, `signal` is aborted, or the node refuses it. A connection that breaks is made
 * again; what was in hand then is given to another worker, or to this one again, marked `redelivered`.
 */
export async function serve(worker: Worker, url: string, options: ServeOptions): Promise<void> {
  const address = socketUrl(url);
  let attempt = 0;
  while (!options.signal?.aborted) {
    const began = Date.now();
    try {
      return await once(worker, address, options);
    } catch (error) {
      const lost = error instanceof EdriError ? error : new EdriError({ code: "failed", message: String(error) });
      if (FINAL.has(lost.code) || lost.isFailure) throw lost;
      if (options.signal?.aborted) return;
      options.onLost?.(lost);
    }
    attempt = Date.now() - began > WAIT_MAX ? 0 : attempt + 1;
    const wait = Math.min(WAIT_MAX, WAIT_MIN * 2 ** attempt) * (0.5 + Math.random() / 2);
    await new Promise<void>((resolve) => {
      const done = () => {
        clearTimeout(timer);
        options.signal?.removeEventListener("abort", done);
        resolve();
      };
      const timer = setTimeout(done, wait);
      options.signal?.addEventListener("abort", done);
    });
  }
}

/** One connection of the worker. */
async function once(worker: Worker, url: string, options: ServeOptions): Promise<void> {
  const encoding = options.encoding ?? json;
  const Constructor = options.WebSocket ?? (globalThis as { WebSocket?: SocketConstructor }).WebSocket;
  if (!Constructor) throw new TypeError("there is no WebSocket here: give one in the options");
  const socket = new Constructor(url, [encoding.subprotocol]) as Socket;
  socket.binaryType = "arraybuffer";
  await new Promise<void>((resolve, reject) => {
    socket.onopen = () => resolve();
    socket.onerror = () => {};
    socket.onclose = ({ reason }: { reason?: string }) => reject(new EdriError({ code: "unreachable", message: reason || `no connection to ${url}` }));
  });
  const write = (messages: Message[]) => {
    for (const message of messages) if (socket.readyState === OPEN) socket.send(message);
  };
  const { manager, token } = options;
  const life = new Life(worker, encoding, { write }, { manager, ...(token !== undefined && { token }) });
  socket.onmessage = ({ data }: { data: string | ArrayBuffer }) => life.came(data);
  socket.onclose = ({ reason }: { reason?: string }) => life.lost(readFault({ code: "unreachable", message: reason || "the connection was closed" }));
  const stop = () => life.stop();
  options.signal?.addEventListener("abort", stop);
  try {
    await life.over;
  } finally {
    options.signal?.removeEventListener("abort", stop);
    socket.onclose = null;
    socket.close();
  }
}
