import type { Fields } from "./encoding.js";
import { EdriError } from "./errors.js";
import type { Condition, Received } from "./events.js";
import type { Peer } from "./peer.js";
import { Queue } from "./queue.js";

export interface SubscribeOptions {
  /** Only events with this key. */
  key?: string;
  /** Only events whose payload holds these, by field: `{ magnitude: { gte: 5 }, "place.country": { eq: "CL" } }`. */
  where?: Record<string, Condition>;
  /** How many events the node keeps for a reader that does not take them: 1,024. */
  capacity?: number;
  /** What happens when more come: `missed` leaves out the oldest and tells how many, `bye` ends the connection. */
  slow?: "missed" | "bye";
}

/** So many events may come before the reader has taken them. */
const CREDIT = 256;

/** Events as they come. */
export class Subscription<R = Received> implements AsyncIterable<R> {
  /** The number of its call in the session of now. @internal */
  id = 0;
  #events: Queue<R>;
  #peer: Peer | undefined;
  #taken = 0;
  #missed = 0;
  #ready!: () => void;
  #refused!: (error: unknown) => void;
  /** Resolves when the node has it in place: what is published from then on comes. */
  readonly ready: Promise<void>;

  /** @internal */
  constructor(
    readonly select: string,
    private readonly options: SubscribeOptions,
    private readonly over: () => void,
  ) {
    this.#events = new Queue<R>(
      () => this.#take(),
      () => this.close(),
    );
    this.ready = new Promise((resolve, reject) => {
      this.#ready = resolve;
      this.#refused = reject;
    });
    this.ready.catch(() => {});
  }

  [Symbol.asyncIterator](): AsyncIterator<R> {
    return this.#events;
  }

  /** Ends it. */
  close(): void {
    this.over();
    if (this.#peer && this.id !== 0) this.#peer.say("unsubscribe", { id: this.id });
    this.#peer = undefined;
    this.#events.end();
  }

  /** @internal Asks for it in a session; `again` after that of before was lost. */
  begin(peer: Peer, again: boolean): void {
    const { key, where, capacity, slow } = this.options;
    this.#peer = peer;
    this.#taken = 0;
    if (again) this.#missed = Infinity;
    const fields = {
      select: this.select,
      credit: CREDIT,
      ...(key !== undefined && { key }),
      ...(capacity !== undefined && { capacity }),
      ...(slow !== undefined && { slow }),
    };
    const sent = (id: number) => {
      this.id = id;
    };
    peer.call("subscribe", fields, where && ["conditions", where], { sent }).then(this.#ready, (error: unknown) => {
      // Lost with its session, it is asked for in the next.
      if (peer === this.#peer) this.fail(error);
    });
  }

  /** @internal */
  came(fields: Fields): void {
    const { event, payload, event_id, key, origin, cause, trace, headers } = fields;
    // Null is absent.
    const present = (value: unknown) => value !== undefined && value !== null;
    const received = {
      name: event,
      payload: payload ?? null,
      id: event_id,
      ...(present(key) && { key }),
      ...(present(origin) && { origin }),
      ...(present(cause) && { cause }),
      ...(present(trace) && { trace }),
      headers: headers ?? {},
      missed: this.#missed,
    };
    this.#missed = 0;
    this.#events.push(received as R);
  }

  /** @internal */
  missed(count: number): void {
    this.#missed += count;
  }

  /** @internal */
  fail(error: unknown): void {
    this.over();
    this.#peer = undefined;
    this.#refused(error ?? new EdriError({ code: "closed" }));
    this.#events.end(error);
  }

  #take(): void {
    this.#taken += 1;
    if (this.#taken < CREDIT / 2 || !this.#peer) return;
    this.#peer.say("credit", { id: this.id, items: this.#taken });
    this.#taken = 0;
  }
}
