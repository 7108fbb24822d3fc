/** Values that wait for their reader, who takes them with `for await`. Whoever fills it sees to its bound. */
export class Queue<T> implements AsyncIterableIterator<T> {
  #values: T[] = [];
  #readers: { resolve: (result: IteratorResult<T>) => void; reject: (error: unknown) => void }[] = [];
  #over: { error?: unknown } | undefined;

  constructor(
    /** Called when a value was taken. */
    private readonly taken: () => void = () => {},
    /** Called when the reader leaves before the end. */
    private readonly left: () => void = () => {},
  ) {}

  get isOver(): boolean {
    return this.#over !== undefined;
  }

  push(value: T): void {
    if (this.#over) return;
    const reader = this.#readers.shift();
    if (!reader) {
      this.#values.push(value);
      return;
    }
    reader.resolve({ done: false, value });
    this.taken();
  }

  /** Nothing more comes; what waits can still be read, then `error` is thrown if there is one. */
  end(error?: unknown): void {
    if (this.#over) return;
    this.#over = error === undefined ? {} : { error };
    for (const reader of this.#readers.splice(0)) {
      if (error === undefined) reader.resolve({ done: true, value: undefined });
      else reader.reject(error);
    }
  }

  next(): Promise<IteratorResult<T>> {
    if (this.#values.length > 0) {
      const value = this.#values.shift() as T;
      this.taken();
      return Promise.resolve({ done: false, value });
    }
    if (this.#over) {
      const { error } = this.#over;
      // The error is told once: whoever asks again finds the end.
      this.#over = {};
      return error === undefined ? Promise.resolve({ done: true, value: undefined }) : Promise.reject(error);
    }
    return new Promise((resolve, reject) => this.#readers.push({ resolve, reject }));
  }

  return(): Promise<IteratorResult<T>> {
    this.#values.length = 0;
    if (!this.#over) {
      this.end();
      this.left();
    }
    return Promise.resolve({ done: true, value: undefined });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}
