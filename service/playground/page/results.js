/** What the model makes of a history, panel by panel, and how two histories differ. */

import { Bar, digits, Embedding, FullMap, Strip } from "./charts.js";
import { html } from "./html.js";
import { cosine } from "./questions.js";

/** @type {Map<string, number>} */
const heights = new Map(); // of panels, so that the page does not jump while they wait

/** @type {(props: {id: string, within?: string, title: string, hint?: any, answers: Answer[], again: () => void,  children: (...values: any[]) => any}) => any} A panel shows the answer to the present question, or why there is none; never an older answer. */
export const Panel = ({ id, within = "", title, hint, answers, again, children }) => {
  const failed = answers.find(({ error }) => error)?.error;
  const done = answers.every(({ status }) => status === "done");
  const measure = (/** @type {HTMLElement | null} */ body) => {
    if (body && done) heights.set(id, body.offsetHeight);
  };
  return html`<section class="panel ${id}" aria-labelledby="${within} ${id}" aria-busy=${!done && !failed}>
    <h3 id=${id}>${title}</h3>
    ${hint && html`<p class="hint">${hint}</p>`}
    <div ref=${measure} style=${{ minHeight: done || failed ? "" : `${heights.get(id) ?? 60}px` }}>
      ${failed && !failed.isOfService && html`<${Problem} error=${failed} again=${again} />`}
      ${!done && (!failed || failed.isOfService) && html`<p class="waiting">${failed ? "waiting for the service…" : "computing…"}</p>`}
      ${done && children(...answers.map(({ value }) => value))}
    </div>
  </section>`;
};

/** @param {{error: import("./api.js").Failure, again: () => void}} props */
export function Problem({ error, again }) {
  const seconds = error.againInS;
  const soon = seconds && seconds <= 60 ? ` The page asks again in ${seconds} s.` : "";
  return html`<div class="problem" role="alert">
    <p>${error.message.replace(/\.?$/, ".")}${soon}</p>
    ${seconds && html`<button type="button" onClick=${again}>Ask again now</button>`}
  </div>`;
}

/**
 * The columns of a map: start token, used clicks, padding.
 * @param {ItemId[]} items used clicks
 * @param {number} older clicks before them
 * @param {number} padding
 * @param {TitleOf} titleOf
 * @returns {Column[]}
 */
const columnsOf = (items, older, padding, titleOf) => [
  { name: "start", kind: "start" },
  ...items.map((item, at) => ({ name: `${older + at + 1} ${titleOf(item).name}` })),
  ...Array.from({ length: padding }, () => /** @type {Column} */ ({ name: "padding", kind: "padding" })),
];

/**
 * The pooled weight of each used click: the mean over the heads.
 * @param {{weights: number[][]}} pooled
 */
export const clickShares = ({ weights }) =>
  (weights[0] ?? []).map((_, at) => weights.reduce((sum, row) => sum + row[at], 0) / weights.length);

/** @param {Drawing} props */
export function Pooled({ value, padding, titleOf, of }) {
  const [{ attention, truncated }] = value.users;
  const columns = columnsOf(attention.items, truncated, padding, titleOf);
  const rows = attention.weights.map((/** @type {number[]} */ row, /** @type {number} */ head) => [
    attention.start[head],
    ...row,
    ...Array(padding).fill(0),
  ]);
  return html`<${Strip} columns=${columns} weights=${rows} label="Weights of the clicks by head${of}" />
    <details><summary>The numbers</summary>
      <div class="scrolled" tabindex="0" role="group" aria-label="Table of weights${of}"><table>
        <thead><tr><th scope="col">position</th>
          ${rows.map((/** @type {any} */ _, /** @type {number} */ head) => html`<th scope="col" key=${head}>head ${head + 1}</th>`)}
        </tr></thead>
        <tbody>${columns.map(
          ({ name, kind }, at) => html`<tr key=${at}><th scope="row">${name}</th>
          ${rows.map((/** @type {number[]} */ row, /** @type {number} */ head) => html`<td key=${head}>${kind === "padding" ? "masked" : row[at].toFixed(4)}</td>`)}</tr>`,
        )}
        </tbody></table></div>
    </details>`;
}

/** @param {Drawing} props */
export function Full({ value, padding, titleOf, of }) {
  const [{ attention, truncated }] = value.users;
  const columns = columnsOf(attention.items, truncated, padding, titleOf);
  return html`<div class="maps">${attention.blocks.map(
    (/** @type {number[][][]} */ heads, /** @type {number} */ block) =>
      heads.map(
        (weights, head) => html`<${FullMap} key="${block} ${head}" id="hatch${of}-${block}-${head}"
      columns=${columns} weights=${weights} label="block ${block + 1}, head ${head + 1}" />`,
      ),
  )}</div>`;
}

/** @param {{value: any}} props */
export function UserEmbedding({ value }) {
  const [{ embedding }] = value.users;
  const length = Math.hypot(...embedding).toFixed(2);
  const range = [Math.min(...embedding), Math.max(...embedding)].map((one) => one.toFixed(2));
  const label = `User embedding: ${embedding.length} numbers from ${range[0]} to ${range[1]}, length ${length}`;
  return html`<${Embedding} values=${embedding} label=${label} /><p class="hint">${label}</p>`;
}

/** @param {{value: any, chosen: ItemId | null, choose: (item: ItemId) => void, titleOf: TitleOf}} props */
export function Next({ value, chosen, choose, titleOf }) {
  const [user] = value.users;
  if (!user.items.length) return html`<p class="hint">No item is left to recommend.</p>`;
  const at = chosenPlace(user, chosen);
  const most = Math.max(...user.scores.map(Math.abs), 1e-6);
  return html`<ol class="next">${user.items.map((/** @type {ItemId} */ item, /** @type {number} */ place) => {
    const { name, link } = titleOf(item);
    return html`<li key=${place}>
      <button type="button" aria-pressed=${place === at} onClick=${() => choose(item)} data-item=${JSON.stringify(item)}>
        <span class="name">${name}</span><span class="number" data-score=${user.scores[place]}>${signed(user.scores[place])}</span>
        <${Bar} share=${user.scores[place] / most} /></button>
      ${link ? html`<a href=${link} rel="noreferrer" aria-label="Page of ${name}">↗</a>` : html`<span></span>`}
    </li>`;
  })}</ol>`;
}

/** @param {{value: any, chosen: ItemId | null, titleOf: TitleOf, of: string}} props */
export function Why({ value, chosen, titleOf, of }) {
  const [{ reasons, truncated, items, scores }] = value.users;
  const at = chosenPlace({ items }, chosen);
  if (at < 0) return html`<p class="hint">No item is left to recommend.</p>`;
  const weights = reasons.weights[at];
  const base = reasons.base?.[at] ?? null;
  const most = Math.max(...weights.map(Math.abs), Math.abs(base ?? 0), 1e-6);
  const rows = reasons.items.map((/** @type {ItemId} */ item, /** @type {number} */ click) => [
    `${truncated + click + 1} ${titleOf(item).name}`,
    weights[click],
  ]);
  if (base !== null) rows.unshift(["without any click", base]);
  return html`${base !== null && html`<p class="hint">What the score would lose without the click. Attention does not say that: it says what was read.</p>`}
  <p><strong>${titleOf(items[at]).name}</strong> scores ${signed(scores[at])}${
    base !== null ? ", the sum of:" : "; the clicks have its attention to these shares:"
  }</p>
  <div class="scrolled tall" tabindex="0" role="group" aria-label="Table of reasons${of}"><table class="bars"><tbody>${rows.map(
    (/** @type {[string, number]} */ [name, weight], /** @type {number} */ row) => html`<tr key=${row}>
    <th scope="row">${name}</th><td data-weight=${weight}>${signed(weight)}</td>
    <td><${Bar} share=${weight / most} /></td></tr>`,
  )}</tbody></table></div>`;
}

/** @type {(props: {values: any[], names: [string, string], items: ItemId[], titleOf: TitleOf}) => any} How two sides differ: the embeddings by their cosine, the items by their scores. props: values: pooled, next and scores of the first side, then of the second. */
export const Changes = ({ values, names, items, titleOf }) => {
  const [pooledA, nextA, scoresA, pooledB, nextB, scoresB] = values.map(({ users }) => users[0]);
  const alike = cosine(pooledA.embedding, pooledB.embedding);
  const rows = items.map((item, at) => {
    const ranks = [nextA, nextB].map((next) => next.items.indexOf(item));
    const [before, after] = [scoresA.scores[at], scoresB.scores[at]];
    return { item, ranks, before, after, change: (after ?? 0) - (before ?? 0) };
  });
  const most = Math.max(...rows.map(({ change }) => Math.abs(change)), 1e-6);
  const rank = (/** @type {number} */ at) => (at < 0 ? "–" : at + 1);
  const score = (/** @type {number | null} */ value) => (value === null ? "unknown" : signed(value));
  return html`<p>${alike === null ? "The embeddings cannot be compared." : html`Cosine between the user embeddings: <strong class="cosine" data-cosine=${alike}>${alike.toFixed(3)}</strong>.`}
    ${" "}${nextA.items.filter((/** @type {ItemId} */ item) => !nextB.items.includes(item)).length} of ${nextA.items.length} recommended items changed.</p>
  <div class="scrolled" tabindex="0" role="group" aria-label="Table of changes"><table class="bars changes">
    <thead><tr><th scope="col">item</th><th scope="col">rank<br />${names[0]}</th><th scope="col">rank<br />${names[1]}</th>
      <th scope="col">score<br />${names[0]}</th><th scope="col">score<br />${names[1]}</th><th scope="col">change</th><td></td></tr></thead>
    <tbody>${rows.map(
      ({ item, ranks, before, after, change }) => html`<tr key=${JSON.stringify(item)}
      class=${ranks[1] < 0 ? "gone" : ranks[0] < 0 ? "new" : ""}>
      <th scope="row">${titleOf(item).name}${ranks[1] < 0 ? html` <small>out</small>` : ranks[0] < 0 && html` <small>new</small>`}</th>
      <td>${rank(ranks[0])}</td><td>${rank(ranks[1])}</td><td>${score(before)}</td><td>${score(after)}</td>
      <td data-change=${change}>${signed(change)}</td><td><${Bar} share=${change / most} /></td></tr>`,
    )}</tbody>
  </table></div>`;
};

/**
 * @param {{items: ItemId[]}} user
 * @param {ItemId | null} chosen
 */
const chosenPlace = ({ items }, chosen) =>
  items.length ? Math.max(0, chosen === null ? 0 : items.indexOf(chosen)) : -1;

/** @param {number} value */
const signed = (value) => `${value < 0 ? "−" : "+"}${digits(Math.abs(value)).replace(/^\./, "0.")}`;
