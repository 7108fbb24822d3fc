/** A declaration of an event, as a node lists them at `/events`. */
export interface Declaration {
  name: string;
  kind: "notification" | "request" | "tunnel";
  key?: string;
  description?: string;
  schemas?: { event?: Schema; output?: Schema; up?: Schema; down?: Schema };
}

type Schema = boolean | SchemaObject;

interface SchemaObject {
  $ref?: string;
  $defs?: Record<string, Schema>;
  title?: string;
  description?: string;
  type?: string | string[];
  const?: unknown;
  enum?: unknown[];
  properties?: Record<string, Schema>;
  required?: string[];
  additionalProperties?: Schema;
  items?: Schema;
  prefixItems?: Schema[];
  oneOf?: Schema[];
  anyOf?: Schema[];
  allOf?: Schema[];
}

/** TypeScript's types of these events. What a schema says that a type cannot is left out; what is not understood is `unknown`. */
export function generate(declarations: readonly Declaration[], from: string): string {
  const types = new Types();
  const events = [...declarations].sort((a, b) => (a.name < b.name ? -1 : 1)).map((event) => eventOf(types, event));
  const head = [
    `// Written by edri-types from the events of ${oneLine(from)}: write it again rather than change it.`,
    "",
    "/** The events of the node, by name: `connect<Events>(url)`. */",
    "export interface Events {",
    ...events,
    "}",
  ];
  return `${[...head, ...types.texts()].join("\n")}\n`;
}

function eventOf(types: Types, { name, kind, description, schemas = {} }: Declaration): string {
  const parts = (["event", "output", "up", "down"] as const).flatMap((part) => {
    const schema = schemas[part];
    if (schema === undefined) return part === "event" ? ["event: unknown"] : [];
    return [`${part}: ${types.root(name, part, schema)}`];
  });
  return `${comment(description, "  ")}  ${JSON.stringify(name)}: { kind: ${JSON.stringify(kind)}; ${parts.join("; ")} };`;
}

/** The types that have names. */
class Types {
  #texts = new Map<string, string>();

  /** The type of a whole schema: its name, if it has a title. */
  root(event: string, part: string, schema: Schema): string {
    if (typeof schema === "boolean") return "unknown";
    const { $defs = {}, ...own } = schema;
    const names = this.#define(event, $defs);
    const title = schema.title && identifier(schema.title);
    if (!title || !schema.properties) return typeOf(own, names, "  ");
    names.set("#", title);
    return this.#add(`${event}.${part}`, title, typeOf(own, names, ""), schema.description);
  }

  texts(): string[] {
    return [...this.#texts.values()];
  }

  /** Names for what a schema defines for itself. */
  #define(event: string, definitions: Record<string, Schema>): Map<string, string> {
    const plain = new Map(Object.keys(definitions).map((key) => [`#/$defs/${pointer(key)}`, identifier(key)]));
    // When another event means something else by one of them, all get names of their own, since they name one another.
    const differs = (names: Map<string, string>) =>
      Object.entries(definitions).some(([key, schema]) => {
        const name = names.get(`#/$defs/${pointer(key)}`) as string;
        const known = this.#texts.get(name);
        return known !== undefined && known !== declared(name, typeOf(schema, names, ""), descriptionOf(schema));
      });
    const names = differs(plain) ? new Map([...plain].map(([key, name]) => [key, identifier(`${event}.${name}`)])) : plain;
    for (const [key, schema] of Object.entries(definitions)) {
      const name = names.get(`#/$defs/${pointer(key)}`) as string;
      this.#texts.set(name, declared(name, typeOf(schema, names, ""), descriptionOf(schema)));
    }
    return names;
  }

  #add(place: string, name: string, type: string, description: string | undefined): string {
    const known = this.#texts.get(name);
    if (known !== undefined && known !== declared(name, type, description)) name = identifier(place);
    this.#texts.set(name, declared(name, type, description));
    return name;
  }
}

function descriptionOf(schema: Schema): string | undefined {
  return typeof schema === "boolean" ? undefined : schema.description;
}

function declared(name: string, type: string, description: string | undefined): string {
  return `\n${comment(description, "")}export type ${name} = ${type};`;
}

function typeOf(schema: Schema, names: Map<string, string>, indent: string): string {
  if (schema === true) return "unknown";
  if (schema === false) return "never";
  const inner = (part: Schema) => typeOf(part, names, indent);
  const parts: string[] = [];
  if (schema.$ref !== undefined) parts.push(names.get(schema.$ref) ?? "unknown");
  if (schema.const !== undefined) parts.push(literal(schema.const));
  else if (schema.enum) parts.push(union(schema.enum.map(literal)));
  else if (schema.type !== undefined || schema.properties) parts.push(typed(schema, names, indent));
  for (const alternatives of [schema.oneOf, schema.anyOf]) {
    if (alternatives) parts.push(union(alternatives.map(inner)));
  }
  for (const part of schema.allOf ?? []) parts.push(inner(part));
  const said = parts.filter((part) => part !== "unknown");
  return said.length === 0 ? "unknown" : said.map((part) => (said.length > 1 ? grouped(part) : part)).join(" & ");
}

function typed(schema: SchemaObject, names: Map<string, string>, indent: string): string {
  const kinds = schema.type === undefined ? ["object"] : [schema.type].flat();
  return union(kinds.map((kind) => kindOf(kind, schema, names, indent)));
}

function kindOf(kind: string, schema: SchemaObject, names: Map<string, string>, indent: string): string {
  switch (kind) {
    case "string":
    case "boolean":
    case "null":
      return kind;
    case "number":
    case "integer":
      return "number";
    case "array":
      if (schema.prefixItems) return `[${schema.prefixItems.map((item) => typeOf(item, names, indent)).join(", ")}]`;
      return `${grouped(typeOf(schema.items ?? true, names, indent))}[]`;
    case "object":
      return objectOf(schema, names, indent);
    default:
      return "unknown";
  }
}

function objectOf(schema: SchemaObject, names: Map<string, string>, indent: string): string {
  const { properties = {}, required = [], additionalProperties } = schema;
  const deeper = `${indent}  `;
  const fields = Object.entries(properties).map(([name, field]) => {
    const mark = required.includes(name) ? "" : "?";
    return `${comment(descriptionOf(field), deeper)}${deeper}${propertyName(name)}${mark}: ${typeOf(field, names, deeper)};`;
  });
  if (fields.length > 0) return `{\n${fields.join("\n")}\n${indent}}`;
  if (additionalProperties === false) return "Record<string, never>";
  const values = additionalProperties === undefined ? "unknown" : typeOf(additionalProperties, names, indent);
  return schema.properties ? "Record<string, never>" : `Record<string, ${values}>`;
}

function union(types: string[]): string {
  const different = [...new Set(types)];
  if (different.length === 0) return "never";
  return different.length === 1 ? (different[0] as string) : different.map(grouped).join(" | ");
}

/** In brackets when it would mean something else beside others. */
function grouped(type: string): string {
  return / [|&] /.test(type.replace(/\{[^]*\}/g, "")) ? `(${type})` : type;
}

function literal(value: unknown): string {
  return value !== null && typeof value === "object" ? "unknown" : JSON.stringify(value);
}

function propertyName(name: string): string {
  return /^[A-Za-z_$][\w$]*$/.test(name) ? name : JSON.stringify(name);
}

/** `quake.recorded` becomes `QuakeRecorded`. */
function identifier(name: string): string {
  const words = name.split(/[^A-Za-z0-9_]+/).filter((word) => word !== "");
  const joined = words.map((word) => (word[0] as string).toUpperCase() + word.slice(1)).join("");
  const plain = /^[0-9]/.test(joined) || joined === "" ? `T${joined}` : joined;
  // The two that stand in the file already.
  return plain === "Events" || plain === "Record" ? `${plain}_` : plain;
}

function pointer(name: string): string {
  return name.replaceAll("~", "~0").replaceAll("/", "~1");
}

function comment(text: string | undefined, indent: string): string {
  if (!text) return "";
  return `${indent}/** ${oneLine(text)} */\n`;
}

function oneLine(text: string): string {
  return text.replace(/\s+/g, " ").replaceAll("*/", "* /").trim();
}
