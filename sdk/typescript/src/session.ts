import type { Message } from "./encoding.js";

/** An `ack` is due after so many frames. */
const ACK_FRAMES = 64;

/** What both sides have sent and have of one another: it outlives the connections that carry it. */
export class Session {
  /** Its name at the node, once there is one. A secret. */
  id: string | undefined;
  /** How many frames came. */
  received = 0;
  #acknowledged = 0;
  /** Frames that the node has not said it has. */
  #kept: Message[] = [];
  #first = 0;

  /** A frame is sent, or will be. */
  keep(message: Message): void {
    this.#kept.push(message);
  }

  /** A frame came. Whether the node is to be told now, rather than in a while. */
  came(): boolean {
    this.received += 1;
    return this.received - this.#acknowledged >= ACK_FRAMES;
  }

  /** How many frames came, when the node does not know of them all. */
  takeAck(): number | undefined {
    if (this.received === this.#acknowledged) return undefined;
    this.#acknowledged = this.received;
    return this.received;
  }

  /** The node has so many frames. `false` when that cannot be. */
  has(received: number): boolean {
    const drop = received - this.#first;
    if (drop < 0 || drop > this.#kept.length) return false;
    this.#kept.splice(0, drop);
    this.#first = received;
    return true;
  }

  /** What the node lacks, in order. */
  get lacking(): readonly Message[] {
    return this.#kept;
  }
}
