import { Context, type Place } from "./context.js";
import type { Encoding, Fields, Message } from "./encoding.js";
import { EdriError, Failure, type Fault, faultOf, readFault } from "./errors.js";
import { Inbox } from "./inbox.js";
import { Peer } from "./peer.js";
import { Tunnel } from "./tunnel.js";
import type { Handler, Kind, Worker } from "./worker.js";

/** What carries a worker's frames. */
export interface Carrier {
  /** Writes these, together, before anything else happens. */
  write(messages: Message[]): void;
}

interface InHand {
  number: number;
  fields: Fields;
  /** When it came. */
  came: number;
  abort: AbortController;
  isCancelled: boolean;
  tunnel?: Tunnel;
}

/** The most calls that one `ack` settles. */
const ACKS_MAX = 4_096;

/** One life of a worker on one connection. */
export class Life {
  readonly peer: Peer;
  place: Place = { node: "", manager: "", instance: 0, arguments: null };
  /** Resolves when the worker has said goodbye; rejects when it could not start, or the connection broke. */
  readonly over: Promise<void>;
  #end!: { resolve: () => void; reject: (error: unknown) => void };
  #isOver = false;
  #inbox: Inbox<InHand>;
  #inHand = new Map<number, InHand>();
  #running = 0;
  #out: Message[] = [];
  #done: number[] = [];
  #isFlushing = false;
  #isServing = false;
  #isLeaving = false;
  #announced: Set<string>;
  #silence = 10_000;
  #watch: ReturnType<typeof setInterval> | undefined;
  #heard = Date.now();

  constructor(
    private readonly worker: Worker,
    encoding: Encoding,
    private readonly carrier: Carrier,
    /** What `hello` says besides. */
    hello: Fields = {},
  ) {
    this.peer = new Peer(encoding, (message) => this.#send(message));
    this.over = new Promise((resolve, reject) => {
      this.#end = { resolve, reject };
    });
    this.over.catch(() => {});
    this.#announced = new Set(worker.declarations.keys());
    this.#inbox = new Inbox((number) => this.#sayBegun(number));
    const { concurrency = 1, window = {}, agent = "@edri/sdk" } = worker.options;
    this.peer.say("hello", {
      version: 1,
      role: "worker",
      agent,
      events: [...worker.declarations.values()],
      handlers: worker.handlers.map(({ select }) => ({ select })),
      window: { calls: window.calls ?? 64, bytes: window.bytes ?? 8 << 20 },
      concurrency,
      ...hello,
    });
  }

  /** A message came. */
  came(message: string | ArrayBuffer | Uint8Array): void {
    if (this.#isOver) return;
    this.#heard = Date.now();
    let frame: [string, Fields];
    try {
      frame = this.peer.encoding.decode(message);
    } catch (error) {
      return this.lost({ code: "malformed_frame", message: `the node sent what is no frame: ${String(error)}` });
    }
    const [name, fields] = frame;
    if (name === "welcome") this.#welcome(fields);
    else if (name === "publish" || name === "request" || name === "open") this.#called(fields);
    else if (name === "cancel") this.#cancel(Number(fields["id"]));
    else if (name === "bye") this.#leave();
    else if (name === "error" && !fields["id"]) this.#error(fields);
    else this.peer.came(name, fields);
  }

  /** The connection is gone. */
  lost(fault: Fault): void {
    this.#finish(new EdriError(fault));
    for (const { abort } of this.#inHand.values()) abort.abort(new EdriError(fault));
  }

  /** Takes nothing more, finishes what is in hand and says goodbye. */
  stop(): void {
    if (this.#isServing) this.#leave();
    else this.lost({ code: "closed", message: "the worker was stopped before it had started" });
  }

  /** An event that was not declared is told of before it is sent. */
  announce(kind: Kind, name: string): void {
    if (this.#announced.has(name)) return;
    this.#announced.add(name);
    this.peer.say("declare", { events: [{ name, kind }] });
  }

  async #welcome(fields: Fields): Promise<void> {
    this.place = {
      node: String(fields["node"] ?? ""),
      manager: String(fields["manager"] ?? ""),
      instance: Number(fields["instance"] ?? 0),
      arguments: fields["arguments"] ?? null,
    };
    this.peer.window = Number(fields["window"]?.calls ?? 64);
    this.#silence = Number(fields["silence_ms"] ?? this.#silence);
    this.#watch = setInterval(() => this.#ping(), this.#silence / 3);
    try {
      for (const hook of this.worker.startHooks) await hook(this.#context());
    } catch (error) {
      const fault = faultOf(error);
      this.peer.say("bye", { error: fault });
      this.#flush();
      return this.#finish(new EdriError(fault, error instanceof Failure));
    }
    if (this.#isOver) return;
    this.#isServing = true;
    this.peer.say("ready", {});
  }

  #ping(): void {
    const silent = Date.now() - this.#heard;
    if (silent >= 3 * this.#silence) this.lost({ code: "unreachable", message: "the node is silent" });
    else if (silent >= this.#silence / 3) this.peer.say("ping", { id: 0 });
  }

  #context(): Context {
    return new Context(this, {}, new AbortController().signal, Date.now());
  }

  #called(fields: Fields): void {
    const call = { number: Number(fields["id"] ?? 0), fields, came: Date.now(), abort: new AbortController(), isCancelled: false };
    if (call.number !== 0) this.#inHand.set(call.number, call);
    this.#inbox.put(call);
    // The other frames that came with it first: what they say of their order is said once.
    this.#soon();
  }

  #isSoon = false;
  #soon(): void {
    if (this.#isSoon) return;
    this.#isSoon = true;
    queueMicrotask(() => {
      this.#isSoon = false;
      this.#handleWaiting();
    });
  }

  #handleWaiting(): void {
    const { concurrency = 1 } = this.worker.options;
    while (this.#running < concurrency && !this.#isOver) {
      const call = this.#inbox.take();
      if (!call) break;
      this.#handle(call);
    }
    this.#leaveWhenIdle();
  }

  #handle(call: InHand): void {
    const { fields } = call;
    const handler = this.worker.handlers[Number(fields["handler"] ?? 0)];
    if (!handler) return this.#answer(call, { error: { code: "no_handler", message: "the worker has no such handler" } });
    if (call.isCancelled) return this.#answer(call, { error: { code: "cancelled" } });
    const isLate = typeof fields["timeout_ms"] === "number" && Date.now() >= call.came + fields["timeout_ms"];
    if (isLate) return this.#answer(call, { error: { code: "timed_out", message: "its time was over before a handler was free" } });
    const done = this.#begin(handler, call);
    if (!(done instanceof Promise)) return this.#answer(call, done);
    this.#running += 1;
    done.then((answer) => {
      this.#running -= 1;
      this.#answer(call, answer);
      this.#handleWaiting();
    });
  }

  #begin(handler: Handler, call: InHand): Answered | Promise<Answered> {
    const cx = new Context(this, call.fields, call.abort.signal, call.came);
    if (handler.kind === "tunnel") {
      call.tunnel = this.peer.accept(call.number, call.fields["credit"], () => {});
    }
    try {
      const value = handler.handle(call.fields["payload"] ?? null, cx, call.tunnel);
      if (!isPromise(value)) return { value, isNotification: handler.kind === "notification" };
      return Promise.resolve(value).then(
        (value) => ({ value, isNotification: handler.kind === "notification" }),
        (error: unknown) => ({ failure: faultOf(error) }),
      );
    } catch (error) {
      return { failure: faultOf(error) };
    }
  }

  #answer(call: InHand, answered: Answered): void {
    if (this.#isOver) return;
    const { number } = call;
    this.#inHand.delete(number);
    if (call.tunnel) this.peer.forget(number);
    if (number === 0) return;
    if ("value" in answered) {
      if (answered.isNotification) {
        this.#done.push(number);
        return this.#flushSoon();
      }
      try {
        return this.peer.sayWith("response", { id: number }, "value", this.peer.pack(answered.value));
      } catch (error) {
        answered = { failure: { code: "invalid_payload", message: `the response cannot be written: ${String(error)}` } };
      }
    }
    this.peer.say("response", { id: number, ...answered });
  }

  #cancel(number: number): void {
    const call = this.#inHand.get(number);
    if (!call) return;
    call.isCancelled = true;
    call.abort.abort(new EdriError({ code: "cancelled", message: "nobody waits any more" }));
    call.tunnel?.break({ code: "cancelled", message: "the opener has dropped the tunnel" }, false);
  }

  #leave(): void {
    this.#isLeaving = true;
    this.#leaveWhenIdle();
  }

  #leaveWhenIdle(): void {
    if (!this.#isLeaving || this.#running > 0 || this.#inbox.length > 0 || this.#isOver) return;
    this.#isLeaving = false;
    void this.#sayBye();
  }

  async #sayBye(): Promise<void> {
    let fault: Fault | undefined;
    try {
      for (const hook of this.worker.stopHooks) await hook(this.#context());
    } catch (error) {
      fault = faultOf(error);
    }
    this.peer.say("bye", fault ? { error: fault } : {});
    this.#flush();
    this.#finish();
  }

  #error(fields: Fields): void {
    const fault = readFault(fields);
    // Before it serves, the node says by it why it does not want this worker.
    if (!this.#isServing) this.#finish(new EdriError(fault));
    else console.error(`edri: the node says: ${fault.code}: ${fault.message ?? ""}`);
  }

  #finish(error?: EdriError): void {
    if (this.#isOver) return;
    this.#isOver = true;
    clearInterval(this.#watch);
    this.peer.end({ code: error?.code ?? "closed", message: error?.message ?? "the worker has ended" });
    if (error) this.#end.reject(error);
    else this.#end.resolve();
  }

  #sayBegun(number: number): void {
    this.#takeDone(number);
    // What dies in the handler must not take this frame with it.
    this.#flush();
  }

  #takeDone(begun?: number): void {
    while (this.#done.length > 0 || begun !== undefined) {
      const done = this.#done.splice(0, ACKS_MAX);
      this.#out.push(this.peer.encoding.encode("ack", { done, ...(begun !== undefined && { begun }) }));
      begun = undefined;
    }
  }

  #send(message: Message): void {
    this.#out.push(message);
    this.#flushSoon();
  }

  #flushSoon(): void {
    if (this.#isFlushing) return;
    this.#isFlushing = true;
    queueMicrotask(() => {
      if (this.#isFlushing) this.#flush();
    });
  }

  #flush(): void {
    this.#isFlushing = false;
    this.#takeDone();
    if (this.#out.length > 0) this.carrier.write(this.#out.splice(0));
  }
}

type Answered = { value: unknown; isNotification: boolean } | { failure: Fault } | { error: Fault };

function isPromise(value: unknown): value is PromiseLike<unknown> {
  return typeof (value as PromiseLike<unknown> | null | undefined)?.then === "function";
}
