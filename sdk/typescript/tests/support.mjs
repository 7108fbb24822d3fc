import { createConnection, createServer } from "node:net";

/** The gateway of the node that the scenario has started. */
export const URL_OF_NODE = process.env.EDRI_URL;

/** How Chromium is started: without a screen, as root if need be, and silent towards the world. */
export const BROWSER = {
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
};

/** Waits until something holds, for ten seconds at most. */
export async function until(what, holds) {
  const end = Date.now() + 10_000;
  while (!(await holds())) {
    if (Date.now() > end) throw new Error(`waited in vain until ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** A network between a client and the node, which can be taken away. */
export class Network {
  #sockets = new Set();
  #isUp = true;
  #isSilent = false;

  static async begin() {
    const network = new Network();
    const target = new URL(URL_OF_NODE);
    network.server = createServer((near) => network.#joined(near, target));
    await new Promise((resolve) => network.server.listen(0, "127.0.0.1", resolve));
    network.url = `http://127.0.0.1:${network.server.address().port}`;
    return network;
  }

  #joined(near, target) {
    if (!this.#isUp) return near.destroy();
    const far = createConnection({ host: target.hostname, port: Number(target.port) });
    for (const [from, to] of [[near, far], [far, near]]) {
      this.#sockets.add(from);
      from.on("data", (bytes) => this.#isSilent || to.write(bytes));
      from.on("close", () => {
        this.#sockets.delete(from);
        to.destroy();
      });
      from.on("error", () => {});
    }
  }

  /** Breaks every connection, and lets nobody in until `mend`. */
  cut() {
    this.#isUp = false;
    for (const socket of this.#sockets) socket.destroy();
  }

  /** Connections stay, and carry nothing: a radio that is out of reach. */
  silence() {
    this.#isSilent = true;
  }

  mend() {
    for (const socket of this.#isSilent ? this.#sockets : []) socket.destroy();
    this.#isUp = true;
    this.#isSilent = false;
  }

  end() {
    this.cut();
    this.server.close();
  }
}
