/** What the page is about, as its address says it, and how histories change. */

/** @type {State} */
const EMPTY = {
  model: "",
  version: "",
  items: [],
  compare: "off",
  others: [],
  against: "",
  without: null,
  chosen: null,
  unseen: false,
  padding: 0,
};
export const MAX_PADDING = 8;
const COMPARES = ["off", "history", "version"];

/** @type {(hash: string) => State | null} The state of an address; null where it has none. */
export const fromHash = (hash) => {
  const said = new URLSearchParams(hash.replace(/^#/, ""));
  if (!said.has("items")) return null;
  const items = ids(said.get("items"));
  const compare = said.get("compare") ?? "off";
  const [chosen = null] = said.has("item") ? ids(`[${said.get("item")}]`) : [];
  const without = Number.parseInt(said.get("without") ?? "", 10);
  const padding = Number.parseInt(said.get("padding") ?? "0", 10) || 0;
  return {
    model: said.get("model") ?? "",
    version: said.get("version") ?? "",
    items,
    compare: /** @type {Compare} */ (COMPARES.includes(compare) ? compare : "off"),
    others: ids(said.get("others")),
    against: said.get("against") ?? "",
    without: without >= 0 && without < items.length ? without : null,
    chosen,
    unseen: said.get("unseen") === "1",
    padding: Math.min(Math.max(padding, 0), MAX_PADDING),
  };
};

/** @type {(state: State) => string} The address of a state. */
export const toHash = (state) => {
  const said = new URLSearchParams();
  if (state.model) said.set("model", state.model);
  if (state.version) said.set("version", state.version);
  said.set("items", JSON.stringify(state.items));
  if (state.compare !== "off") said.set("compare", state.compare);
  if (state.compare === "history") said.set("others", JSON.stringify(state.others));
  if (state.compare === "version") said.set("against", state.against);
  if (state.without !== null) said.set("without", String(state.without));
  if (state.chosen !== null) said.set("item", JSON.stringify(state.chosen));
  if (state.unseen) said.set("unseen", "1");
  if (state.padding) said.set("padding", String(state.padding));
  return `#${said}`;
};

/** @param {Partial<State>} [changes] */
export const fresh = (changes) => ({ ...EMPTY, ...changes });

/** @type {(text: string) => ItemId[]} Item ids that somebody typed: a JSON list, or one a line, or with commas between them. */
export const typedIds = (text) => {
  if (text.trim().startsWith("[")) {
    const found = ids(text);
    if (found.length) return found;
  }
  const separator = text.includes("\n") ? "\n" : ",";
  return text.split(separator).flatMap((part) => part.trim() || []);
};

/** @type {(items: ItemId[]) => string} The ids as the box shows them, so that `typedIds` reads the same. */
export const asText = (items) => {
  const plain = items.every((item) => typeof item === "string" && item.trim() === item && item && !/[\n,[]/.test(item));
  return plain ? items.join("\n") : JSON.stringify(items);
};

/** @type {(items: ItemId[], from: number, to: number) => ItemId[]} */
export const moved = (items, from, to) => {
  const rest = items.toSpliced(from, 1);
  return rest.toSpliced(Math.min(Math.max(to, 0), rest.length), 0, items[from]);
};

/** @type {(text: string | null) => ItemId[]} A list of ids; empty where the text is none. */
const ids = (text) => {
  try {
    const found = JSON.parse(text ?? "[]");
    const isId = (/** @type {unknown} */ one) => typeof one === "string" || Number.isSafeInteger(one);
    return Array.isArray(found) && found.every(isId) ? found : [];
  } catch {
    return [];
  }
};
