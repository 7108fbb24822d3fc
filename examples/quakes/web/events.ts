// Written by edri-types from the events of quakes --serve: write it again rather than change it.

/** The events of the node, by name: `connect<Events>(url)`. */
export interface Events {
  /** How many alerts were there, and which quakes were the strongest? */
  "alerts.list": { kind: "request"; event: Record<string, unknown>; output: Alerts };
  /** How are the magnitudes distributed? */
  "magnitudes.study": { kind: "request"; event: Record<string, unknown>; output: Study };
  /** What are the managers doing? */
  "managers.list": { kind: "request"; event: Record<string, unknown>; output: ManagerShown[] };
  /** What has this network recorded? */
  "network.summarise": { kind: "request"; event: SummariseNetwork; output: NetworkSummary };
  /** A quake was so strong that people should know. */
  "quake.alert": { kind: "notification"; event: QuakeAlert };
  /** The earth shook, and a seismic network took note. */
  "quake.recorded": { kind: "notification"; event: QuakeRecorded };
}

/** A quake was so strong that people should know. */
export type QuakeAlert = {
  id: string;
  magnitude: number;
  place: string;
  time_ms: number;
};

export type Alerts = {
  count: number;
  strongest: QuakeAlert[];
};

/** How many quakes have about this magnitude. */
export type Bin = {
  count: number;
  magnitude: number;
};

/** The law as fitted to a catalogue. */
export type GutenbergRichter = {
  a: number;
  b: number;
  /** The standard error of `b`. */
  b_error: number;
  /** Where 95 of 100 bootstrapped `b` lie. */
  b_interval: [number, number];
  /** How many quakes are as large. */
  count: number;
  /** The magnitude of completeness. */
  mc: number;
};

/** The magnitudes of many quakes. */
export type Study = {
  /** The law for all natural quakes. */
  gutenberg_richter?: GutenbergRichter | null;
  /** The law for those of each network that has enough. */
  gutenberg_richter_by_network: Record<string, GutenbergRichter>;
  histogram: Bin[];
};

export type ManagerShown = {
  capacity: number;
  failed: number;
  handled: number;
  name: string;
  /** Of its workers. */
  restarts: number;
  state: string;
  /** Events in its inboxes, and the places there. */
  waiting: number;
  workers: number;
};

/** What has this network recorded? */
export type SummariseNetwork = {
  network: string;
};

export type NetworkSummary = {
  count: number;
  /** The largest magnitude. */
  largest?: number | null;
  /** Where that was. */
  place?: string | null;
};

/** The earth shook, and a seismic network took note. */
export type QuakeRecorded = {
  id: string;
  latitude?: number | null;
  /** In degrees east of Greenwich, and north of the equator. */
  longitude?: number | null;
  /** Not every quake has one, and those of the smallest are below zero. */
  magnitude?: number | null;
  /** Not an explosion or a quarry blast. */
  natural: boolean;
  /** The network's code: `ci` is Southern California, `us` the whole world. */
  network: string;
  place: string;
  /** Milliseconds since 1970, UTC. */
  time_ms: number;
};
