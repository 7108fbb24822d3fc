import type { Packed } from "./encoding.js";
import { EdriError, type Fault, readFault } from "./errors.js";
import { Queue } from "./queue.js";

/** How many items may come before the reader has taken them. */
const ITEMS = 64;
/** Bytes are not counted: so many, once. */
const BYTES = Number.MAX_SAFE_INTEGER;

/** What a tunnel needs of its connection. */
export interface Line {
  pack(item: unknown): Packed;
  size(packed: Packed): number;
  data(id: number, packed: Packed): void;
  say(name: "credit" | "end" | "abort" | "cancel", fields: { id: number } & Record<string, unknown>): void;
}

/** A stream of items in both directions. Reading it with `for await` gives the other side room to send. */
export class Tunnel<Out = unknown, In = unknown> implements AsyncIterable<In> {
  #items: Queue<In>;
  #taken = 0;
  #credit = { items: 0, bytes: 0 };
  /** Those who wait for credit, in their order. */
  #senders: { packed: Packed; resolve: () => void; reject: (error: unknown) => void }[] = [];
  #finished = false;
  #broken: EdriError | undefined;
  /** How much the other side may send from the beginning. */
  static readonly credit = { items: ITEMS, bytes: BYTES };

  constructor(
    private readonly line: Line,
    private readonly id: number,
    /** Called when nobody reads any more. */
    left: () => void,
  ) {
    this.#items = new Queue<In>(() => this.#take(), left);
  }

  /** Sends an item; waits until the other side has room for it. Throws an `EdriError` when the tunnel is over. */
  async send(item: Out): Promise<void> {
    const packed = this.line.pack(item);
    if (this.#broken) throw this.#broken;
    if (this.#finished) throw new EdriError({ code: "finished", message: "this direction has ended" });
    if (this.#senders.length === 0 && this.#hasCredit()) {
      this.#write(packed);
      return;
    }
    await new Promise<void>((resolve, reject) => this.#senders.push({ packed, resolve, reject }));
  }

  /** Nothing more is sent. The other direction goes on. */
  finish(): void {
    if (this.#finished || this.#broken) return;
    this.#finished = true;
    // Behind what waits for credit.
    if (this.#senders.length === 0) this.line.say("end", { id: this.id });
  }

  /** Breaks both directions: the other side gets the code and the message. */
  abort(code = "aborted", message = ""): void {
    if (this.#broken) return;
    this.line.say("abort", { id: this.id, failure: { code, message } });
    this.break({ code, message });
  }

  /** The next item; `undefined` at the end. */
  async receive(): Promise<In | undefined> {
    const { value } = await this.#items.next();
    return value;
  }

  [Symbol.asyncIterator](): AsyncIterator<In> {
    return this.#items;
  }

  /** @internal */
  granted(items: number, bytes: number): void {
    this.#credit.items += items;
    this.#credit.bytes += bytes;
    if (this.#senders.length === 0) return;
    while (this.#hasCredit()) {
      const sender = this.#senders.shift();
      if (!sender) break;
      this.#write(sender.packed);
      sender.resolve();
    }
    if (this.#finished && this.#senders.length === 0) this.line.say("end", { id: this.id });
  }

  /** @internal An item came. */
  came(item: In): void {
    this.#items.push(item);
  }

  /** @internal The other side sends nothing more. */
  ended(): void {
    this.#items.end();
  }

  /** @internal The call is over: nothing can be sent, what came can still be read. */
  over(): void {
    this.ended();
    this.#fail(new EdriError({ code: "finished", message: "the other side is done with the tunnel" }));
  }

  /** @internal */
  break(fault: unknown, isFailure = true): void {
    const error = new EdriError(readFault(fault) satisfies Fault, isFailure);
    this.#items.end(error);
    this.#fail(error);
  }

  #fail(error: EdriError): void {
    this.#broken ??= error;
    for (const sender of this.#senders.splice(0)) sender.reject(error);
  }

  #hasCredit(): boolean {
    return this.#credit.items > 0 && this.#credit.bytes > 0;
  }

  #write(packed: Packed): void {
    this.#credit.items -= 1;
    this.#credit.bytes -= this.line.size(packed);
    this.line.data(this.id, packed);
  }

  #take(): void {
    this.#taken += 1;
    if (this.#taken < ITEMS / 2 || this.#items.isOver) return;
    this.line.say("credit", { id: this.id, items: this.#taken, bytes: 0 });
    this.#taken = 0;
  }
}
