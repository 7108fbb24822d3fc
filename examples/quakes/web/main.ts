import { connect, type Received } from "@edri/sdk";

import type { Events, ManagerShown } from "./events.js";
import { WorldMap } from "./map.js";
import { Plot } from "./plot.js";
import { magnitudeOf, type Quake, Quakes } from "./quakes.js";

/** How many are listed. */
const LISTED = 60;
/** How often the managers are asked for, in milliseconds. */
const ASKED = 1_000;

const element = (id: string) => document.getElementById(id) as HTMLElement;
const quakes = new Quakes();
const map = new WorldMap(quakes);
const plot = new Plot(quakes);
const when = new Intl.DateTimeFormat(undefined, { dateStyle: "short", timeStyle: "short", timeZone: "UTC" });

let isPaused = false;
let isChanged = true;

function select(quake: Quake): void {
  quakes.selected = quakes.selected?.id === quake.id ? undefined : quake;
  for (const button of element("latest").querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(button.dataset["id"] === quakes.selected?.id));
  }
  element("said").textContent = quakes.selected ? `Magnitude ${magnitudeOf(quake)}, ${quake.place}, ${when.format(quake.time_ms)} UTC` : "";
  isChanged = true;
}

function list(quake: Quake): void {
  const button = document.createElement("button");
  const parts = [document.createElement("b"), document.createElement("span"), document.createElement("time")] as const;
  parts[0].textContent = magnitudeOf(quake);
  parts[1].textContent = quake.place;
  parts[2].textContent = when.format(quake.time_ms);
  button.append(...parts);
  button.dataset["id"] = quake.id;
  button.setAttribute("aria-pressed", "false");
  button.addEventListener("click", () => select(quake));
  const line = document.createElement("li");
  line.append(button);
  const lines = element("latest");
  lines.prepend(line);
  // One that has the focus stays until it has lost it.
  while (lines.childElementCount > LISTED && !lines.lastElementChild?.contains(document.activeElement)) lines.lastElementChild?.remove();
}

function came({ payload: quake, missed }: Received<string, Quake>): void {
  const now = performance.now();
  quakes.add(quake, now);
  map.came(quake, now);
  list(quake);
  if (missed > 0) element("said").textContent = `${missed === Infinity ? "Some" : missed} quakes were left out.`;
  isChanged = true;
}

/** Nothing is drawn while nothing changes, but the rings of what has just come. */
let animated = 0;
function draw(now: number): void {
  if (isChanged) animated = now + 2_000;
  if (now < animated && !isPaused) {
    map.draw(now);
    if (isChanged) plot.draw();
  } else if (isChanged) {
    map.draw(now);
    plot.draw();
  }
  isChanged = false;
  requestAnimationFrame(draw);
}

function tell(): void {
  const { strongest, seen } = quakes;
  element("seen").textContent = seen.toLocaleString();
  element("rate").textContent = quakes.rate(performance.now()).toFixed(1);
  element("strongest").textContent = strongest ? `${magnitudeOf(strongest)}, ${strongest.place}` : "none yet";
}

const handledBefore = new Map<string, number>();
function show(managers: ManagerShown[], seconds: number): void {
  const rows = managers.map((manager) => {
    const row = document.createElement("tr");
    const rate = (manager.handled - (handledBefore.get(manager.name) ?? manager.handled)) / seconds;
    handledBefore.set(manager.name, manager.handled);
    const cells = [
      manager.name, manager.state, manager.workers, `${manager.waiting} of ${manager.capacity}`, rate.toFixed(1),
      manager.handled.toLocaleString(), manager.failed, manager.restarts,
    ];
    for (const text of cells) row.insertCell().textContent = String(text);
    return row;
  });
  element("managers").replaceChildren(...rows);
}

function listen(): void {
  element("pause").addEventListener("click", () => {
    isPaused = !isPaused;
    element("pause").setAttribute("aria-pressed", String(isPaused));
    element("pause").textContent = isPaused ? "Go on" : "Pause";
    go?.();
  });
  element("latest").addEventListener("keydown", (event) => {
    const line = (event.target as HTMLElement).closest("li");
    const next = event.key === "ArrowDown" ? line?.nextElementSibling : event.key === "ArrowUp" ? line?.previousElementSibling : undefined;
    if (!next) return;
    event.preventDefault();
    next.querySelector("button")?.focus();
  });
}

/** Ends a pause. While it lasts nothing is read, so the node keeps what comes, as far as its history goes. */
let go: (() => void) | undefined;
async function whileNotPaused(): Promise<void> {
  while (isPaused) await new Promise<void>((resolve) => (go = resolve));
}

async function main(): Promise<void> {
  listen();
  requestAnimationFrame(draw);
  const state = element("state");
  const node = await connect<Events>(undefined, {
    onState: (now) => {
      state.className = now;
      state.textContent = now;
    },
  });
  const ask = async () => {
    tell();
    try {
      if (node.state === "connected") show(await node.request("managers.list", {}, { timeout: ASKED }), ASKED / 1_000);
    } catch {
      // It is asked again in a second; the state says when the node is away.
    }
  };
  setInterval(ask, ASKED);
  void ask();
  for await (const event of node.subscribe("quake.recorded", { last: 300 })) {
    await whileNotPaused();
    came(event);
  }
}

main().catch((error: Error) => {
  element("state").className = "closed";
  element("state").textContent = error.message;
});
