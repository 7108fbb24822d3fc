import type { Encoding, Fields, Message, Packed } from "./encoding.js";
import { EdriError, type Fault, readFault } from "./errors.js";
import { type Line, Tunnel } from "./tunnel.js";

/** What the calls of this side are. */
export type CallName = "publish" | "request" | "open" | "subscribe" | "unsubscribe";

/** An answer of one among many. */
export interface Answer {
  /** The manager that answers, `node/manager` on another node. */
  from: string;
  value?: unknown;
  error?: EdriError;
}

interface Call {
  resolve: (value: unknown) => void;
  reject: (error: unknown) => void;
  more?: ((answer: Answer) => void) | undefined;
  tunnel?: Tunnel;
  /** Undoes what watches the caller's patience. */
  settle: () => void;
  /** Nobody waits any more: its answer is dropped. */
  isDropped: boolean;
}

export interface CallOptions {
  signal?: AbortSignal | undefined;
  /** In milliseconds. */
  timeout?: number | undefined;
  more?: (answer: Answer) => void;
  tunnel?: (tunnel: Tunnel) => void;
  /** Called with the number of the call when it is sent. */
  sent?: (id: number) => void;
}

/** One side of a connection: its calls and their answers, and the tunnels of both sides. It knows of no socket and no clock but timers. */
export class Peer implements Line {
  #calls = new Map<number, Call>();
  #tunnels = new Map<number, Tunnel>();
  #next = 1;
  #window = 64;
  /** Calls that wait for the window, in their order. */
  #waiting: { send: () => void; refuse: (error: EdriError) => void }[] = [];
  #ended: EdriError | undefined;

  constructor(
    readonly encoding: Encoding,
    private readonly write: (message: Message) => void,
  ) {}

  say(name: string, fields: Fields): void {
    this.write(this.encoding.encode(name, fields));
  }

  sayWith(name: string, fields: Fields, payload: string, packed: Packed): void {
    this.write(this.encoding.encode(name, fields, payload, packed));
  }

  data(id: number, packed: Packed): void {
    this.sayWith("data", { id }, "payload", packed);
  }

  pack(value: unknown): Packed {
    return this.encoding.pack(value);
  }

  size(packed: Packed): number {
    return this.encoding.size(packed);
  }

  /** How many calls the other side takes at once. */
  set window(calls: number) {
    this.#window = calls;
    this.#sendWaiting();
  }

  /** Makes a call; resolves with the value of its response. */
  call(name: CallName, fields: Fields, payload: [field: string, value: unknown] | undefined, options: CallOptions = {}): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const { signal, timeout } = options;
      signal?.throwIfAborted();
      if (this.#ended) throw this.#ended;
      const packed = payload && this.encoding.pack(payload[1]);
      const began = Date.now();
      let id = 0;
      const giveUp = (error: unknown) => {
        call.settle();
        reject(error);
        if (id === 0) call.isDropped = true;
        else this.#drop(id);
      };
      const aborted = () => giveUp(signal?.reason);
      const late = () => giveUp(new EdriError({ code: "timed_out", message: `no response within ${timeout} ms` }));
      const timer = timeout === undefined ? undefined : setTimeout(late, timeout);
      const call: Call = { resolve, reject, more: options.more, isDropped: false, settle: () => {} };
      call.settle = () => {
        clearTimeout(timer);
        signal?.removeEventListener("abort", aborted);
      };
      signal?.addEventListener("abort", aborted, { once: true });
      const send = () => {
        if (call.isDropped) return;
        id = this.#number();
        this.#calls.set(id, call);
        const left = timeout === undefined ? {} : { timeout_ms: Math.max(1, Math.ceil(timeout - (Date.now() - began))) };
        if (options.tunnel) this.#open(id, call, options.tunnel);
        options.sent?.(id);
        const all = { id, ...fields, ...left };
        if (payload && packed !== undefined) this.sayWith(name, all, payload[0], packed);
        else this.say(name, all);
      };
      const refuse = (error: EdriError) => {
        call.settle();
        reject(error);
      };
      this.#waiting.push({ send, refuse });
      this.#sendWaiting();
    });
  }

  /** A frame came. `false` when it is none for this side of the calls. */
  came(name: string, fields: Fields): boolean {
    const id = Number(fields["id"] ?? 0);
    switch (name) {
      case "response":
        this.#answered(id, fields);
        return true;
      case "data":
        this.#tunnels.get(id)?.came(fields["payload"] ?? null);
        return true;
      case "credit":
        this.#tunnels.get(id)?.granted(Number(fields["items"] ?? 0), Number(fields["bytes"] ?? 0));
        return true;
      case "end":
        this.#tunnels.get(id)?.ended();
        return true;
      case "abort":
        this.#tunnels.get(id)?.break(fields["failure"]);
        return true;
      case "window":
        this.window = Number(fields["calls"]);
        return true;
      case "ping":
        this.say("pong", { id });
        return true;
      case "pong":
        return true;
      case "error":
        if (id === 0) return false;
        this.#answered(id, { error: fields });
        return true;
      default:
        return false;
    }
  }

  /** The tunnel of a call that the other side makes. */
  accept(id: number, credit: unknown, left: () => void): Tunnel {
    const tunnel = new Tunnel(this, id, left);
    const { items, bytes } = (credit ?? {}) as { items?: number; bytes?: number };
    tunnel.granted(items ?? 0, bytes ?? 0);
    this.#tunnels.set(id, tunnel);
    this.say("credit", { id, ...Tunnel.credit });
    return tunnel;
  }

  /** The call with that number is over. */
  forget(id: number): void {
    this.#tunnels.get(id)?.over();
    this.#tunnels.delete(id);
  }

  /** Whoever waits gets the error; so does every later call. */
  end(fault: Fault): void {
    this.#ended ??= new EdriError(fault);
    const error = this.#ended;
    for (const tunnel of this.#tunnels.values()) tunnel.break(fault, false);
    this.#tunnels.clear();
    for (const call of this.#calls.values()) {
      call.settle();
      call.reject(error);
    }
    this.#calls.clear();
    for (const waiting of this.#waiting.splice(0)) waiting.refuse(error);
  }

  #number(): number {
    const id = this.#next;
    this.#next += 2;
    return id;
  }

  #open(id: number, call: Call, opened: (tunnel: Tunnel) => void): void {
    const tunnel = new Tunnel(this, id, () => this.#drop(id));
    call.tunnel = tunnel;
    this.#tunnels.set(id, tunnel);
    opened(tunnel);
  }

  #sendWaiting(): void {
    while (this.#calls.size < this.#window) {
      const waiting = this.#waiting.shift();
      if (!waiting) return;
      waiting.send();
    }
  }

  /** Nobody waits for that call any more. It is in the window until it is answered all the same. */
  #drop(id: number): void {
    const call = this.#calls.get(id);
    if (!call || call.isDropped) return;
    call.isDropped = true;
    this.say("cancel", { id });
    call.tunnel?.break({ code: "cancelled", message: "the tunnel was dropped" }, false);
  }

  #answered(id: number, fields: Fields): void {
    const call = this.#calls.get(id);
    if (!call) return;
    const { from, more, value, failure, error } = fields;
    const wrong = failure ?? error;
    const problem = wrong === undefined || wrong === null ? undefined : new EdriError(readFault(wrong), failure !== undefined && failure !== null);
    if (more === true) {
      if (!call.isDropped) call.more?.({ from: String(from ?? ""), ...(problem ? { error: problem } : { value: value ?? null }) });
      return;
    }
    this.#calls.delete(id);
    call.settle();
    if (problem) {
      if (call.tunnel) call.tunnel.break(wrong, problem.isFailure);
      this.#tunnels.delete(id);
      call.reject(problem);
    } else {
      this.forget(id);
      call.resolve(value ?? null);
    }
    this.#sendWaiting();
  }
}
