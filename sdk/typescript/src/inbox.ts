/** The most calls that are said to have begun at once. */
const BATCH_MAX = 32;
/** A batch that took less, in milliseconds, may be twice as large the next time; after one that took more each call is said alone. */
const QUICK = 0.2;
const SLOW = 1;

/**
 * Calls that wait for a handler, in the order they came.
 *
 * Before the first call of a batch is given out, `sayBegun` tells the node the number of its last one. When this worker dies, the
 * node takes what had begun for its possible causes; so the batch is one call where handlers last, and grows where they take
 * microseconds: there a frame for each call would cost as much as the call.
 */
export class Inbox<C extends { number: number }> {
  #waiting: C[] = [];
  #first = 0;
  #begun = 0;
  #batch = 1;
  #since: number | undefined;

  constructor(private readonly sayBegun: (number: number) => void) {}

  get length(): number {
    return this.#waiting.length - this.#first;
  }

  put(call: C): void {
    this.#waiting.push(call);
  }

  take(): C | undefined {
    const call = this.#waiting[this.#first];
    if (!call) {
      this.#waiting.length = 0;
      this.#first = 0;
      this.#measure();
      return undefined;
    }
    this.#first += 1;
    if (call.number > this.#begun) {
      this.#measure();
      const last = this.#waiting[Math.min(this.#first - 1 + this.#batch, this.#waiting.length) - 1] ?? call;
      this.#begun = last.number;
      this.sayBegun(this.#begun);
      this.#since = performance.now();
    }
    return call;
  }

  /** Takes out the call with that number, if it has not been given out. */
  remove(number: number): C | undefined {
    const place = this.#waiting.findIndex((call, index) => index >= this.#first && call.number === number);
    return place < 0 ? undefined : this.#waiting.splice(place, 1)[0];
  }

  /** The batch before is over: chooses the size of the next. */
  #measure(): void {
    if (this.#since === undefined) return;
    const took = performance.now() - this.#since;
    this.#since = undefined;
    if (took < QUICK) this.#batch = Math.min(2 * this.#batch, BATCH_MAX);
    else if (took > SLOW) this.#batch = 1;
  }
}
