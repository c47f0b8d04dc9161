/** The page: its state, what it asks, and where everything stands. */

import { Answers, apiKey } from "./api.js";
import { Editor, newDesk } from "./editor.js";
import { html, onValue } from "./html.js";
import { code, questions, sides, Titles, union } from "./questions.js";
import { Changes, clickShares, Full, Next, Panel, Pooled, Problem, UserEmbedding, Why } from "./results.js";
import { fresh, fromHash, MAX_PADDING, toHash } from "./state.js";
import { render } from "./vendor/preact.js";

const root = /** @type {HTMLElement} */ (document.getElementById("page"));
const titles = new Titles();
const answers = new Answers(update);
const given = fromHash(location.hash);
/** @type {State} */
let state = given ?? fresh();
let begun = given !== null; // else the first example of the model is taken
/** @type {Record<Side, Desk>} */
const desks = { a: newDesk(state.without ?? 0), b: newDesk() };
let said = ""; // what was copied, or why not
let drawn = false;

/** @param {Partial<State>} changes */
function setState(changes) {
  state = { ...state, ...changes };
  begun = true;
  said = "";
  update();
}

/** @type {(side: Side, changes: Partial<Desk>) => void} */
const setDesk = (side, changes) => {
  Object.assign(desks[side], changes);
  update();
};

/** @type {(side: Side, items: ItemId[], at?: number, focus?: boolean) => void} The click `at` is chosen afterwards. */
const setItems = (side, items, at = items.length - 1, focus = false) => {
  desks[side].at = Math.max(0, Math.min(at, items.length - 1));
  setState(side === "a" ? { items, without: null } : { others: items });
  const place = items.length ? `click-${side}-${desks[side].at}` : `search-${side}`;
  if (focus || !items.length) queueMicrotask(() => document.getElementById(place)?.focus()); // once it is drawn
};

/** Asks what there is to ask, and draws what is known, in one turn for all that has changed. */
function update() {
  if (drawn) return;
  drawn = true;
  queueMicrotask(() => {
    drawn = false;
    settle();
    answers.want(questions(state, answers, titles, searches()));
    if (begun) history.replaceState(null, "", toHash(state));
    root.toggleAttribute("data-naming", answers.entries.get("titles")?.status === "loading"); // some ids have no names yet
    render(html`<${Page} />`, root);
  });
}

/** Takes from new answers what the state lacks. */
function settle() {
  const cards = answers.get("models").value?.models ?? [];
  const named = cards.filter((/** @type {any} */ one) => !state.model || one.name === state.model);
  if (named.length && !(state.model && state.version)) {
    const { name: model, version, examples } = named[0];
    state = { ...state, model, version: state.version || version };
    if (!begun && examples.length) state.items = examples[0].history;
  }
  if (state.compare === "version" && !state.against)
    state.against = named.find((/** @type {any} */ one) => one.version !== state.version)?.version ?? state.version;
  for (const name of ["titles", "search-a", "search-b"]) titles.learn(answers.get(name).value);
  for (const side of /** @type {Side[]} */ (["a", "b"])) {
    const [desk, hits] = [desks[side], answers.get(`search-${side}`).value?.items];
    if (desk.eager && hits?.length) {
      Object.assign(desk, { search: "", eager: false, option: 0 });
      setItems(side, [...itemsOf(side), hits[0].item]);
    }
  }
}

/** @param {Side} side */
const itemsOf = (side) => (side === "a" ? state.items : state.others);

const searches = () =>
  Object.fromEntries(Object.entries(desks).flatMap(([side, { search }]) => (search === null ? [] : [[side, search]])));

const titleOf = (/** @type {ItemId} */ item) => titles.get(state, item);
const again = () => answers.again();

function Page() {
  const models = answers.get("models");
  const errors = [...answers.entries.values()].flatMap(({ error }) => error ?? []);
  const down = errors.find((error) => error.isOfService);
  const trouble = html`<div class="trouble">${down && html`<${Problem} error=${down} again=${again} />`}</div>`;
  if (errors.some(({ status }) => status === 401)) return html`<${KeyForm} />`;
  if (models.status === "failed" && !down) return html`<${Problem} error=${models.error} again=${again} />`;
  if (models.status !== "done") return down ? trouble : html`<p class="waiting">asking for the models…</p>`;
  const { cards, card } = choice();
  const two = sides(state).b !== undefined && state.compare !== "off";
  const shown = /** @type {Side[]} */ (two ? ["a", "b"] : ["a"]);
  const edited = state.compare === "history" ? shown : /** @type {Side[]} */ (["a"]);
  return html`<${Choices} cards=${cards} card=${card} />
    ${trouble}
    <div class="columns">${edited.map((side) => html`<${HistoryEditor} key=${side} side=${side} card=${card} />`)}</div>
    ${sides(state).b && html`<${Difference} />`}
    <div class="columns">${shown.map(
      (side) => html`<div key=${side} class="side" data-side=${side}>
      ${two && html`<h2 id="side-${side}">${sideNames()[side === "a" ? 0 : 1]}</h2>`}
      <${Results} side=${side} two=${two} /></div>`,
    )}</div>
    <${Share} />`;
}

/** The cards of the models, and the one that is chosen. */
function choice() {
  const cards = /** @type {any[]} */ (answers.get("models").value.models);
  const card = cards.find((one) => one.name === state.model && one.version === state.version);
  return { cards, card };
}

/** @param {{cards: any[], card: any}} props */
function Choices({ cards, card }) {
  const names = [...new Set([...cards.map(({ name }) => name), state.model])];
  const own = cards.filter(({ name }) => name === state.model).map(({ version }) => version);
  const versions = [...new Set([...own, state.version])];
  const pick = (/** @type {string} */ model) => {
    const first = cards.find(({ name }) => name === model);
    const items = first?.examples[0]?.history ?? [];
    setState(fresh({ model, version: first?.version ?? "", items }));
  };
  const compare = (/** @type {string} */ chosen) => {
    const others = state.others.length ? state.others : state.items;
    setState({ compare: /** @type {Compare} */ (chosen), without: null, others });
  };
  const options = (/** @type {string[]} */ values) =>
    values.map((one) => html`<option key=${one} value=${one}>${one}</option>`);
  const set = (/** @type {keyof State} */ name) => onValue((value) => setState({ [name]: value }));
  return html`<div class="row choices">
    <span class="field"><label for="model">Model</label>
      <select id="model" value=${state.model} onChange=${onValue(pick)}>${options(names)}</select></span>
    <span class="field"><label for="version">Version</label>
      <select id="version" value=${state.version} onChange=${set("version")}>${options(versions)}</select></span>
    <span class="field"><label for="compare">Compare</label>
      <select id="compare" value=${state.compare} onChange=${onValue(compare)}>
      <option value="off">nothing</option><option value="history">with another history</option>
      <option value="version">with another version</option></select></span>
    ${
      state.compare === "version" &&
      html`<span class="field"><label for="against">Other version</label>
      <select id="against" value=${state.against} onChange=${set("against")}>${options([...new Set([...own, state.against])])}</select></span>`
    }
    <span class="field"><label for="padding">Padding</label> <input id="padding" type="number" min="0" max=${MAX_PADDING} value=${state.padding}
      onInput=${onValue((text) => setState({ padding: Math.min(Math.max(Number.parseInt(text, 10) || 0, 0), MAX_PADDING) }))} />
      ${state.padding > 0 && html`<span class="hint">fills short histories of a batch; masked, it changes no number</span>`}</span>
    <label class="check"><input type="checkbox" checked=${state.unseen}
      onChange=${(/** @type {any} */ { target }) => setState({ unseen: target.checked })} /> only items not yet clicked</label>
    ${
      card
        ? html`<p class="hint about">${card.description} ${card.n_items.toLocaleString("en")} items, newest ${card.max_length} clicks, ${card.architecture.blocks} blocks of ${card.architecture.heads} ${card.architecture.heads === 1 ? "head" : "heads"}.</p>`
        : html`<p class="problem" role="alert">The service has no version ${state.version} of “${state.model}”. Choose another above.</p>`
    }
  </div>`;
}

/** @param {{side: Side, card: any}} props */
function HistoryEditor({ side, card }) {
  const pooled = answers.get(`pooled-${side}`);
  return html`<${Editor} side=${side} heading=${state.compare === "history" ? `History ${side.toUpperCase()}` : "History"}
    items=${itemsOf(side)} desk=${desks[side]} titleOf=${titleOf} found=${answers.get(`search-${side}`)}
    setDesk=${(/** @type {Partial<Desk>} */ changes) => setDesk(side, changes)}
    setItems=${(/** @type {ItemId[]} */ items, /** @type {number} */ at, /** @type {boolean} */ focus) => setItems(side, items, at, focus)}
    examples=${card?.examples ?? []} maxLength=${card?.max_length ?? Infinity} padding=${state.padding}
    shares=${pooled.status === "done" ? clickShares(pooled.value.users[0].attention) : null}
    without=${side === "a" ? state.without : null}
    setWithout=${state.compare === "off" ? (/** @type {number | null} */ without) => setState({ without }) : null} />`;
}

/** @param {{side: Side, two: boolean}} props */
function Results({ side, two }) {
  const of = two ? ` of ${sideNames()[side === "a" ? 0 : 1]}` : "";
  const panel = (/** @type {string} */ name) => ({
    id: `${name}-${side}`,
    within: two ? `side-${side}` : "",
    answers: [answers.get(`${name}-${side}`)],
    again,
  });
  const drawing = { padding: state.padding, titleOf, of };
  const choose = (/** @type {ItemId} */ chosen) => setState({ chosen });
  return html`<div class="pair">
      <${Panel} ...${panel("pooled")} title="What the user embedding takes of each click"
        hint="The weights of each head sum to 1, with that of the start token, which stands in front of every history. A chip shows the mean over the heads.">
        ${(/** @type {any} */ value) => html`<${Pooled} value=${value} ...${drawing} />`}</${Panel}>
      <${Panel} ...${panel("pooled")} id="embedding-${side}" title="The user embedding">
        ${(/** @type {any} */ value) => html`<${UserEmbedding} value=${value} />`}</${Panel}>
    </div>
    <div class="pair">
      <${Panel} ...${panel("next")} title="What the model expects next" hint="The items with the highest scores. Choose one to see what speaks for it.">
        ${(/** @type {any} */ value) => html`<${Next} value=${value} chosen=${state.chosen} choose=${choose} titleOf=${titleOf} />`}</${Panel}>
      <${Panel} ...${panel("next")} id="why-${side}" title="The clicks that speak for it">
        ${(/** @type {any} */ value) => html`<${Why} value=${value} chosen=${state.chosen} ...${drawing} />`}</${Panel}>
    </div>
    <${Panel} ...${panel("full")} title="What every position looks at" hint="Down: as of this position. Across: what it looks at.">
      ${(/** @type {any} */ value) => html`<${Full} value=${value} ...${drawing} />`}</${Panel}>`;
}

function Difference() {
  const names = /** @type {Side[]} */ (["a", "b"]).flatMap((side) =>
    ["pooled", "next", "scores"].map((name) => `${name}-${side}`),
  );
  return html`<${Panel} id="changes" title=${`What changes: ${sideNames().join(" → ")}`} answers=${names.map((name) => answers.get(name))} again=${again}>
    ${(/** @type {any[]} */ ...values) => html`<${Changes} values=${values} names=${sideNames()} items=${union(answers) ?? []} titleOf=${titleOf} />`}</${Panel}>`;
}

/** What the two sides are called. */
function sideNames() {
  if (state.compare === "version") return [`version ${state.version}`, `version ${state.against}`];
  if (state.without === null) return ["A", "B"];
  return ["all clicks", `without ${state.without + 1} ${titleOf(state.items[state.without]).name}`];
}

function Share() {
  const texts = code(state, apiKey.get() !== "");
  const copy = async (/** @type {string} */ name, /** @type {string} */ text) => {
    const place = name === "link" ? "address bar" : "box below";
    said = `Copy it from the ${place}: the browser does not let this page.`;
    await navigator.clipboard?.writeText(text).then(() => (said = `${name} copied`), String);
    update();
  };
  const parts = Object.entries({ link: texts.link, curl: texts.curl, Python: texts.python });
  return html`<section class="panel share" aria-labelledby="share"><h3 id="share">The same elsewhere</h3>
    <div class="row">${parts.map(([name, text]) => html`<button key=${name} type="button" onClick=${() => copy(name, text)}>Copy ${name}</button>`)}
      <span role="status">${said}</span></div>
    ${parts.slice(1).map(
      ([name, text]) => html`<details key=${name}><summary>${name}</summary>
      <pre tabindex="0" role="group" aria-label=${name}>${text}</pre></details>`,
    )}</section>`;
}

function KeyForm() {
  const tried =
    answers.get("models").status === "loading"
      ? "asking…"
      : "The key is not known. Is it spelled right, and still valid?";
  const said = apiKey.get() ? tried : "Whoever runs it can give you one. It stays in this tab.";
  const submit = (/** @type {any} */ event) => {
    event.preventDefault();
    apiKey.set(event.target.elements.key.value.trim());
    again();
  };
  return html`<form class="panel" onSubmit=${submit}><h2>This service asks for a key</h2>
    <p role="status">${said}</p>
    <div class="row"><label>API key <input name="key" type="password" autocomplete="off" required /></label>
    <button type="submit">Use the key</button></div></form>`;
}

addEventListener("hashchange", () => {
  const said = fromHash(location.hash);
  if (said && toHash(said) !== toHash(state)) setState(said);
});
update();
