import { feature } from "topojson-client";
import world from "world-atlas/land-110m.json";

import { Canvas } from "./canvas.js";
import { colourOf, magnitudeOf, type Quake, type Quakes } from "./quakes.js";

type Ring = [longitude: number, latitude: number][];

/** How long a quake that has just come is circled, in milliseconds. */
const FRESH = 1_500;
/** The ice of Antarctica takes a quarter of the map and has few quakes. */
const SOUTH = -72;
const NORTH = 84;

/** The same ring, going on beyond the date line where it crosses it, rather than across the whole map. */
function unbroken(ring: Ring): Ring {
  let turns = 0;
  let before = ring[0]?.[0] ?? 0;
  return ring.map(([longitude, latitude]) => {
    if (Math.abs(longitude - before) > 180) turns += longitude < before ? 360 : -360;
    before = longitude;
    return [longitude + turns, latitude];
  });
}

/** The outline of the land, from Natural Earth. */
const land: Ring[] = (feature(world as never, (world as never as { objects: { land: never } }).objects.land) as never as {
  features: { geometry: { coordinates: Ring[][] } }[];
}).features.flatMap(({ geometry }) => geometry.coordinates.flat().map(unbroken));

/** The world, and where it shook. */
export class WorldMap {
  #canvas: Canvas;
  #came = new Map<string, number>();
  #isQuiet = matchMedia("(prefers-reduced-motion: reduce)");

  constructor(private readonly quakes: Quakes) {
    this.#canvas = new Canvas("world", () => this.draw(performance.now()));
  }

  came(quake: Quake, now: number): void {
    this.#came.set(quake.id, now);
  }

  draw(now: number): void {
    const { context, width, height } = this.#canvas;
    context.clearRect(0, 0, width, height);
    this.#drawLand();
    for (const quake of this.quakes.all) this.#drawQuake(quake, now);
    if (this.quakes.selected) this.#mark(this.quakes.selected);
  }

  #place(longitude: number, latitude: number): [number, number] {
    const { width, height } = this.#canvas;
    return [((longitude + 180) / 360) * width, ((NORTH - latitude) / (NORTH - SOUTH)) * height];
  }

  #drawLand(): void {
    const { context } = this.#canvas;
    context.fillStyle = this.#canvas.colour("--land");
    context.beginPath();
    for (const ring of land) {
      const longitudes = ring.map(([longitude]) => longitude);
      // What is beyond an edge comes in at the other.
      this.#trace(ring, 0);
      if (Math.max(...longitudes) > 180) this.#trace(ring, -360);
      if (Math.min(...longitudes) < -180) this.#trace(ring, 360);
    }
    context.fill();
  }

  #trace(ring: Ring, east: number): void {
    const { context } = this.#canvas;
    ring.forEach(([longitude, latitude], index) => {
      const [x, y] = this.#place(longitude + east, latitude);
      if (index === 0) context.moveTo(x, y);
      else context.lineTo(x, y);
    });
    context.closePath();
  }

  #drawQuake(quake: Quake, now: number): void {
    const { longitude, latitude } = quake;
    if (typeof longitude !== "number" || typeof latitude !== "number") return;
    const { context } = this.#canvas;
    const magnitude = quake.magnitude ?? 0;
    const [x, y] = this.#place(longitude, latitude);
    const radius = 1.5 + Math.max(0, magnitude) ** 1.5 * 0.6;
    context.fillStyle = this.#canvas.colour(colourOf(magnitude));
    context.strokeStyle = context.fillStyle;
    context.globalAlpha = 0.65;
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.fill();
    // The time of a frame is a little before that of what came since.
    const age = Math.max(0, now - (this.#came.get(quake.id) ?? -FRESH));
    if (age < FRESH && !this.#isQuiet.matches) {
      context.globalAlpha = 1 - age / FRESH;
      context.beginPath();
      context.arc(x, y, radius + (18 * age) / FRESH, 0, 2 * Math.PI);
      context.stroke();
    } else {
      this.#came.delete(quake.id);
    }
    context.globalAlpha = 1;
  }

  #mark(quake: Quake): void {
    const { longitude, latitude } = quake;
    if (typeof longitude !== "number" || typeof latitude !== "number") return;
    const { context, width } = this.#canvas;
    const [x, y] = this.#place(longitude, latitude);
    context.strokeStyle = this.#canvas.colour("--text");
    context.fillStyle = context.strokeStyle;
    context.lineWidth = 1.5;
    context.beginPath();
    context.arc(x, y, 14, 0, 2 * Math.PI);
    context.stroke();
    context.lineWidth = 1;
    context.font = "600 13px system-ui, sans-serif";
    context.textAlign = x > width / 2 ? "right" : "left";
    context.fillText(`${magnitudeOf(quake)}  ${quake.place}`, x + (x > width / 2 ? -20 : 20), y + 4);
  }
}
