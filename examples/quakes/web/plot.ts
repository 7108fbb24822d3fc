import { Canvas } from "./canvas.js";
import { colourOf, type Quakes } from "./quakes.js";

const DAY = 24 * 3600 * 1000;
const LEAST = 0;
const MOST = 8;
const EDGE = { left: 24, right: 8, top: 8, bottom: 22 };

/** The magnitude of each quake over the time when it happened. */
export class Plot {
  #canvas: Canvas;

  constructor(private readonly quakes: Quakes) {
    this.#canvas = new Canvas("plot", () => this.draw());
  }

  draw(): void {
    const { context, width, height } = this.#canvas;
    context.clearRect(0, 0, width, height);
    const times = this.quakes.all.map((quake) => quake.time_ms);
    const first = Math.min(...times);
    // Not less than an hour, so that the first few do not fill the width.
    const last = Math.max(first + 3600 * 1000, ...times);
    const x = (time: number) => EDGE.left + ((time - first) / (last - first)) * (width - EDGE.left - EDGE.right);
    const y = (magnitude: number) => height - EDGE.bottom - ((magnitude - LEAST) / (MOST - LEAST)) * (height - EDGE.top - EDGE.bottom);
    this.#drawAxes(y);
    if (times.length === 0) return;
    this.#drawDays(first, last, x);
    for (const quake of this.quakes.all) {
      if (typeof quake.magnitude !== "number") continue;
      const magnitude = Math.max(LEAST, Math.min(MOST, quake.magnitude));
      context.fillStyle = this.#canvas.colour(colourOf(magnitude));
      context.globalAlpha = quake === this.quakes.selected ? 1 : 0.6;
      context.beginPath();
      context.arc(x(quake.time_ms), y(magnitude), quake === this.quakes.selected ? 5 : 2.2, 0, 2 * Math.PI);
      context.fill();
    }
    context.globalAlpha = 1;
  }

  #drawAxes(y: (magnitude: number) => number): void {
    const { context, width } = this.#canvas;
    context.font = "11px system-ui, sans-serif";
    context.strokeStyle = this.#canvas.colour("--line");
    context.fillStyle = this.#canvas.colour("--quiet");
    context.textAlign = "right";
    for (let magnitude = LEAST; magnitude <= MOST; magnitude += 2) {
      context.beginPath();
      context.moveTo(EDGE.left, y(magnitude));
      context.lineTo(width - EDGE.right, y(magnitude));
      context.stroke();
      context.fillText(String(magnitude), EDGE.left - 6, y(magnitude) + 4);
    }
  }

  #drawDays(first: number, last: number, x: (time: number) => number): void {
    const { context, width, height } = this.#canvas;
    const span = last - first;
    // As many marks as have room.
    const steps = [3600 * 1000, 3 * 3600 * 1000, 6 * 3600 * 1000, 12 * 3600 * 1000, DAY, 2 * DAY, 7 * DAY, 28 * DAY];
    const step = steps.find((step) => span / step <= width / 90) ?? 28 * DAY;
    context.textAlign = "center";
    for (let time = Math.ceil(first / step) * step; time <= last; time += step) {
      const text = new Date(time).toLocaleString(undefined, step < DAY ? { hour: "2-digit", minute: "2-digit", timeZone: "UTC" } : { day: "numeric", month: "short", timeZone: "UTC" });
      context.fillText(text, Math.min(Math.max(x(time), EDGE.left + 14), width - 20), height - 6);
    }
  }
}
