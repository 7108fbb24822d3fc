import { Socket } from "node:net";

import { type Encoding, json, type Message } from "./encoding.js";
import { Life } from "./life.js";
import type { Worker } from "./worker.js";

/** The longest frame, without its length. */
const FRAME_BYTES_MAX = 16 << 20;
const PREFIX_BYTES = 4;

/**
 * Runs a worker in a process that a node has started, on the socket that it finds as file descriptor 0. Resolves when the node
 * has no more work for it, and exits the process when the node is gone.
 */
export async function runProcess(worker: Worker, options: { encoding?: Encoding } = {}): Promise<void> {
  if (process.env["EDRI_WORKER"] === undefined) {
    throw new Error("this is a worker that a node starts, as by `Manager::program(\"name\", \"node worker.mjs\")`: alone it has nobody to work for");
  }
  // Ctrl-C is for the node, which then says goodbye to its workers.
  process.on("SIGINT", () => {});
  const socket = new Socket({ fd: 0, readable: true, writable: true });
  const life = new Life(worker, options.encoding ?? json, { write: (messages) => socket.write(framed(messages)) });
  const reader = new FrameReader((message) => life.came(message));
  socket.on("data", (bytes) => {
    try {
      reader.read(bytes);
    } catch (error) {
      life.lost({ code: "frame_too_long", message: String(error) });
    }
  });
  let isGone = false;
  const gone = () => {
    isGone = true;
    life.lost({ code: "unreachable", message: "the node is gone" });
  };
  socket.on("error", gone);
  socket.on("end", gone);
  socket.on("close", gone);
  try {
    await life.over;
  } catch (error) {
    // Nobody reads what would be said of it.
    if (isGone) process.exit(1);
    console.error(error instanceof Error ? error.message : error);
    process.exitCode = 1;
  }
  socket.end(() => process.exit());
}

/** Frames, each behind its length, in one piece: one system call, made before the handler that follows is called. */
function framed(messages: Message[]): Buffer {
  const parts: Buffer[] = [];
  for (const message of messages) {
    const bytes = typeof message === "string" ? Buffer.from(message) : Buffer.from(message.buffer, message.byteOffset, message.byteLength);
    const prefix = Buffer.allocUnsafe(PREFIX_BYTES);
    prefix.writeUInt32BE(bytes.length);
    parts.push(prefix, bytes);
  }
  return Buffer.concat(parts);
}

/** Takes bytes in whatever pieces they come and gives frames. */
export class FrameReader {
  #parts: Buffer[] = [];
  #length = 0;
  #needed = PREFIX_BYTES;

  constructor(private readonly frame: (bytes: Uint8Array) => void) {}

  /** Throws a `RangeError` for a frame that is too long. */
  read(bytes: Buffer): void {
    this.#parts.push(bytes);
    this.#length += bytes.length;
    if (this.#length < this.#needed) return;
    let all = this.#parts.length === 1 ? bytes : Buffer.concat(this.#parts);
    while (all.length >= PREFIX_BYTES) {
      const length = all.readUInt32BE();
      if (length > FRAME_BYTES_MAX) throw new RangeError(`a frame of ${length} bytes, where ${FRAME_BYTES_MAX} is the most`);
      const end = PREFIX_BYTES + length;
      this.#needed = end;
      if (all.length < end) break;
      this.frame(all.subarray(PREFIX_BYTES, end));
      all = all.subarray(end);
      this.#needed = PREFIX_BYTES;
    }
    this.#parts = all.length > 0 ? [all] : [];
    this.#length = all.length;
  }
}
