/** Which questions a state of the page asks, and what their answers are about. */

import { toHash } from "./state.js";

export const K = 10;
const TITLES_AT_ONCE = 500;

/** @type {(state: State) => Sides} What each side asks about; the second is there when something is compared or left out. */
export const sides = (state) => {
  const { model, version, items, compare, without } = state;
  const a = { model, version, items };
  if (compare === "history") return { a, b: { ...a, items: state.others } };
  if (compare === "version") return { a, b: { ...a, version: state.against } };
  return without === null ? { a } : { a, b: { ...a, items: items.toSpliced(without, 1) } };
};

/**
 * All that the page wants to know now, first what other questions depend on.
 * @param {State} state
 * @param {import("./api.js").Answers} answers
 * @param {Titles} titles
 * @param {Partial<Record<Side, string>>} searches what is typed into the open search boxes
 * @returns {Generator<Question>}
 */
export function* questions(state, answers, titles, searches) {
  yield { name: "models", path: "v1/models" };
  if (!answers.get("models").value) return;
  const { model, version } = state;
  const asked = Object.entries(sides(state));
  for (const [side, { items, ...of }] of asked) {
    const body = { ...of, histories: [items] };
    yield { name: `pooled-${side}`, path: "v1/encode", body: { ...body, attention: "pooled" } };
    const recommend = { ...body, k: K, with_reasons: true, exclude_seen: state.unseen };
    yield { name: `next-${side}`, path: "v1/recommend", body: recommend };
    if (side === "a" || state.compare !== "off")
      yield { name: `full-${side}`, path: "v1/encode", body: { ...body, attention: "full" } };
  }
  yield* scores(asked, answers);
  for (const [side, text] of Object.entries(searches))
    yield {
      name: `search-${side}`,
      path: "v1/items/search",
      body: { model, version, search: text.slice(0, 256), k: K },
    };
  const shown = asked.flatMap(([side, { items }]) => [...items, ...(next(answers, side)?.items ?? [])]);
  const missing = titles.missing(state, shown);
  if (missing.length) yield { name: "titles", path: "v1/items/search", body: { model, version, items: missing } };
}

/** @type {(asked: [string, Asked][], answers: import("./api.js").Answers) => Question[]} Both sides score what either recommends. */
const scores = (asked, answers) => {
  const candidates = union(answers);
  if (asked.length < 2 || !candidates) return [];
  return asked.map(([side, { model, version, items }]) => ({
    name: `scores-${side}`,
    path: "v1/score",
    body: { model, version, histories: [items], candidates },
  }));
};

/** @type {(answers: import("./api.js").Answers) => ItemId[] | null} What either side recommends; null until both are known. */
export const union = (answers) => {
  const [a, b] = [next(answers, "a"), next(answers, "b")];
  return a && b && [...new Set([...a.items, ...b.items])];
};

/** @type {(answers: import("./api.js").Answers, side: string) => any} */
const next = (answers, side) => answers.get(`next-${side}`).value?.users[0];

/** What people call the items; the ids until it is known. */
export class Titles {
  constructor() {
    /** @type {Map<string, Title>} */
    this.known = new Map();
  }

  /** @param {State} state @param {ItemId} item @returns {Title} */
  get(state, item) {
    return this.known.get(place(state, item)) ?? { name: String(item), link: null, known: true };
  }

  /** @param {State} state @param {ItemId[]} items */
  missing(state, items) {
    const wanted = [...new Set(items)].filter((item) => !this.known.has(place(state, item)));
    return wanted.slice(0, TITLES_AT_ONCE);
  }

  /** @param {{model: string, version: string, items: any[]} | undefined} answer of `POST /v1/items/search` */
  learn(answer) {
    if (!answer) return;
    for (const { item, ...title } of answer.items) this.known.set(place(answer, item), title);
  }
}

/**
 * @param {{model: string, version: string}} of
 * @param {ItemId} item
 */
const place = ({ model, version }, item) => JSON.stringify([model, version, item]);

/** @type {(a: number[], b: number[]) => number | null} The cosine of two embeddings; null where they have not the same width, or one is zero. */
export const cosine = (a, b) => {
  const dot = (/** @type {number[]} */ x, /** @type {number[]} */ y) =>
    x.reduce((sum, value, at) => sum + value * y[at], 0);
  if (a.length !== b.length) return null;
  const length = Math.sqrt(dot(a, a) * dot(b, b));
  return length ? dot(a, b) / length : null;
};

/** @type {(state: State, hasKey: boolean) => {link: string, curl: string, python: string}} The commands that ask what the page asks. */
export const code = (state, hasKey) => {
  const base = new URL(".", location.href).href.replace(/\/$/, "");
  const asked = Object.values(sides(state));
  const [first] = asked;
  const same = asked.every(({ version }) => version === first.version);
  const groups = same ? [asked] : asked.map((one) => [one]);
  const key = hasKey ? ' \\\n  -H "x-api-key: $PERSONA_KEY"' : "";
  const curl = groups.flatMap((group) => {
    const { model, version } = group[0];
    const of = { model, version, histories: group.map(({ items }) => items) };
    const next = { ...of, k: K, with_reasons: true, exclude_seen: state.unseen };
    return Object.entries({ encode: { ...of, attention: "full" }, recommend: next }).map(
      ([verb, body]) => `curl -s ${base}/v1/${verb}${key} -d '${JSON.stringify(body).replaceAll("'", "'\\''")}'`,
    );
  });
  const python = [
    hasKey ? "import os\n\nfrom persona import Client\n" : "from persona import Client\n",
    `with Client("${base}"${hasKey ? ', headers={"x-api-key": os.environ["PERSONA_KEY"]}' : ""}) as client:`,
    ...groups.flatMap((group) => {
      const of = `model=${JSON.stringify(group[0].model)}, version=${JSON.stringify(group[0].version)}`;
      const seen = state.unseen ? ", exclude_seen=True" : "";
      return [
        `    histories = ${JSON.stringify(group.map(({ items }) => items))}`,
        `    encoded = client.encode(histories, attention="full", ${of})`,
        `    users = client.recommend(histories, ${K}, with_reasons=True${seen}, ${of}).users`,
        "    print(encoded.embeddings)",
        "    print([user.items for user in users])",
      ];
    }),
  ];
  const link = new URL(toHash(state), location.href).href;
  return { link, curl: curl.join("\n"), python: python.join("\n") };
};
