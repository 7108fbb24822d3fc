import type { Events } from "./events.js";

export type Quake = Events["quake.recorded"]["event"];

/** How many are kept and drawn. */
const KEPT = 600;

/** The quakes that have come, the latest last. */
export class Quakes {
  readonly all: Quake[] = [];
  seen = 0;
  strongest: Quake | undefined;
  selected: Quake | undefined;
  #times: number[] = [];

  add(quake: Quake, now: number): void {
    this.seen += 1;
    this.#times.push(now);
    this.all.push(quake);
    if (this.all.length > KEPT) this.all.shift();
    if ((quake.magnitude ?? -10) > (this.strongest?.magnitude ?? -10)) this.strongest = quake;
  }

  /** How many came a second, in the last five. */
  rate(now: number): number {
    while (this.#times.length > 0 && now - (this.#times[0] as number) > 5_000) this.#times.shift();
    return this.#times.length / 5;
  }
}

export const magnitudeOf = (quake: Quake) => (quake.magnitude === null || quake.magnitude === undefined ? "?" : quake.magnitude.toFixed(1));

/** The colour of a quake of that magnitude, as the page's style names it. */
export const colourOf = (magnitude: number) => (magnitude >= 5 ? "--strong" : magnitude >= 3 ? "--middle" : "--small");
