/** Builds a history: search, examples, ids, and clicks that are moved, repeated and removed. */

import { html, onValue } from "./html.js";
import { asText, moved, typedIds } from "./state.js";

/** @returns {Desk} */
export const newDesk = (at = 0) => ({
  at,
  search: null,
  option: 0,
  eager: false,
  typed: null,
  drag: null,
});

const FAR_ENOUGH = 6; // pixels, from a tap to a drag

/** @param {EditorProps} props */
export function Editor(props) {
  const { side, heading, items, maxLength } = props;
  const older = Math.max(0, items.length - maxLength);
  return html`<section class="editor panel" aria-labelledby="heading-${side}">
    <h2 id="heading-${side}">${heading}</h2>
    <div class="row">
      <${Search} ...${props} />
      <span class="field" hidden=${!props.examples.length}><label for="example-${side}">Example</label>
        <select id="example-${side}" value="" onChange=${(/** @type {any} */ { target }) => {
          const example = props.examples[target.value];
          target.value = "";
          if (example) props.setItems(example.history);
        }}>
          <option value="">choose…</option>
          ${props.examples.map((one, at) => html`<option key=${at} value=${at}>${one.name}</option>`)}
        </select></span>
      <button type="button" disabled=${!items.length} onClick=${() => props.setItems([])}>Clear</button>
    </div>
    <${Chips} ...${props} older=${older} />
    ${items.length > 0 && html`<${Tools} ...${props} />`}
    ${
      older > 0 &&
      html`<p class="hint">The model reads the newest ${maxLength} clicks; ${older} older ${
        older === 1 ? "one is" : "ones are"
      } left out.</p>`
    }
    <details>
      <summary>As ids</summary>
      <label>Item ids, oldest first: one a line, with commas, or a JSON list
        <textarea rows="4" spellcheck="false" value=${props.desk.typed ?? asText(items)}
          onInput=${onValue((typed) => {
            props.setDesk({ typed });
            props.setItems(typedIds(typed));
          })}
          onBlur=${() => props.setDesk({ typed: null })}></textarea>
      </label>
    </details>
  </section>`;
}

/** @param {EditorProps & {older: number}} props */
function Chips(props) {
  const { side, items, desk, titleOf, older, padding, shares, without } = props;
  if (!items.length && !padding)
    return html`<p class="hint empty">No click yet: the model answers from its start token alone.</p>`;
  return html`<ol class="chips" aria-label="Clicks, oldest to newest">
    ${items.map((item, at) => {
      const { name, known } = titleOf(item);
      const share = at >= older ? shares?.[at - older] : undefined;
      const classes = [
        "chip",
        at < older && "older",
        !known && "unknown",
        at === without && "left-out",
        desk.drag?.moving && at === desk.drag.to && "target",
        desk.drag?.moving && at === desk.drag.from && "dragged",
      ];
      return html`<li key=${at} class=${classes.filter(Boolean).join(" ")} data-click=${at}>
        <button type="button" class="click" id="click-${side}-${at}" aria-pressed=${at === desk.at}
          tabindex=${at === Math.min(desk.at, items.length - 1) ? 0 : -1}
          onFocus=${() => props.setDesk({ at })} onClick=${() => props.setDesk({ at })}
          onKeyDown=${(/** @type {KeyboardEvent} */ event) => onKey(event, at, props)}
          ...${dragging(props, at)}>
          <span class="number">${at + 1}</span> ${name}
          ${!known && html`<span class="mark" title="The model does not know this item."> unknown</span>`}
          ${share !== undefined && html` <span class="weight" data-share=${share}>${Math.round(100 * share)} %</span>`}
        </button>
        <button type="button" class="remove" tabindex="-1" aria-label="Remove click ${at + 1}, ${name}"
          onClick=${() => props.setItems(items.toSpliced(at, 1), at, true)}>×</button>
        ${
          share !== undefined &&
          html`<svg class="under" viewBox="0 0 100 1" preserveAspectRatio="none"
          aria-hidden="true"><rect width=${100 * share} height="1" /></svg>`
        }
      </li>`;
    })}
    ${Array.from(
      { length: padding },
      (_, at) => html`<li key="padding-${at}" class="chip padding">
      padding <span class="mark">masked</span></li>`,
    )}
  </ol>`;
}

/** @param {EditorProps} props */
function Tools({ items, desk, setItems, titleOf, without, setWithout }) {
  const at = Math.min(desk.at, items.length - 1);
  const { name, link } = titleOf(items[at]);
  return html`<div class="row tools" role="toolbar" aria-label="Click ${at + 1}, ${name}">
    <span class="hint">click ${at + 1}, ${link ? html`<a href=${link} rel="noreferrer">${name}</a>` : name}:</span>
    <button type="button" disabled=${at === 0} onClick=${() => setItems(moved(items, at, at - 1), at - 1)}>Earlier</button>
    <button type="button" disabled=${at === items.length - 1}
      onClick=${() => setItems(moved(items, at, at + 1), at + 1)}>Later</button>
    <button type="button" onClick=${() => setItems(items.toSpliced(at, 0, items[at]), at + 1)}>Repeat</button>
    <button type="button" onClick=${() => setItems(items.toSpliced(at, 1), at)}>Remove</button>
    ${
      setWithout &&
      html`<button type="button" aria-pressed=${without === at}
      onClick=${() => setWithout(without === at ? null : at)}>What if it were not there?</button>`
    }
  </div>`;
}

/** @type {(event: KeyboardEvent, at: number, props: EditorProps) => void} Arrows go from click to click, with Shift they move it; Delete removes it. */
const onKey = (event, at, { items, setItems, setDesk, side }) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (step) {
    const to = Math.min(Math.max(at + step, 0), items.length - 1);
    if (event.shiftKey) setItems(moved(items, at, to), to, true);
    else {
      setDesk({ at: to });
      document.getElementById(`click-${side}-${to}`)?.focus();
    }
  } else if (event.key === "Delete" || event.key === "Backspace") setItems(items.toSpliced(at, 1), at, true);
  else return;
  event.preventDefault();
};

/** @type {(props: EditorProps, at: number) => Record<string, (event: any) => void>} A drag by mouse, pen or finger. Up and down still scroll the page. */
const dragging = ({ desk, setDesk, items, setItems }, at) => {
  return {
    onPointerDown: (/** @type {any} */ event) => {
      if (event.button) return;
      setDesk({ drag: { from: at, to: at, x: event.clientX, y: event.clientY, moving: false } });
      event.currentTarget.setPointerCapture(event.pointerId);
    },
    onPointerMove: (/** @type {any} */ event) => {
      const { drag } = desk;
      if (!drag) return;
      const far = Math.hypot(event.clientX - drag.x, event.clientY - drag.y) > FAR_ENOUGH;
      const below = document.elementFromPoint(event.clientX, event.clientY);
      const chip = /** @type {HTMLElement | null | undefined} */ (below?.closest("[data-click]"));
      const inside = chip && event.currentTarget.closest("ol")?.contains(chip);
      const to = inside ? Number(chip.dataset.click) : drag.to;
      if (far || drag.moving) setDesk({ drag: { ...drag, to, moving: true } });
    },
    onPointerUp: () => {
      const { drag } = desk;
      setDesk({ drag: null });
      if (drag?.moving && drag.from !== drag.to) setItems(moved(items, drag.from, drag.to), drag.to);
    },
    onPointerCancel: () => setDesk({ drag: null }),
  };
};

/** @param {EditorProps} props */
function Search({ side, desk, setDesk, items, setItems, found }) {
  const open = desk.search !== null;
  const titles = found.status === "done" ? found.value.items : [];
  const text = (desk.search ?? "").trim();
  const add = (/** @type {ItemId} */ item) => {
    setDesk({ search: "", option: 0, eager: false });
    setItems([...items, item]);
  };
  const onKeyDown = (/** @type {KeyboardEvent} */ event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      const option = Math.min(Math.max(desk.option + step, 0), Math.max(0, titles.length - 1));
      setDesk(open ? { option } : { search: "" });
    } else if (event.key === "Enter" && open) {
      if (titles.length) add(titles[desk.option].item);
      else if (found.status === "done") text && add(text);
      else setDesk({ eager: true });
    } else if (event.key === "Escape") setDesk({ search: null });
    else return;
    event.preventDefault();
  };
  return html`<div class="search">
    <label for="search-${side}">Add an item</label>
    <input id="search-${side}" type="text" role="combobox" autocomplete="off" spellcheck="false"
      placeholder="search by name" aria-expanded=${open} aria-controls="found-${side}"
      aria-activedescendant=${titles.length ? `option-${side}-${desk.option}` : null}
      value=${desk.search ?? ""} onKeyDown=${onKeyDown}
      onInput=${onValue((search) => setDesk({ search, option: 0, eager: false }))}
      onFocus=${() => open || setDesk({ search: "", option: 0 })}
      onBlur=${() => setDesk({ search: null, eager: false })} />
    <div class="found" hidden=${!open}>
      <ul id="found-${side}" role="listbox" aria-label="Items found">
        ${titles.map(
          (/** @type {any} */ { item, name }, /** @type {number} */ at) => html`<li key=${at}
          role="option" id="option-${side}-${at}" aria-selected=${at === desk.option}
          onPointerDown=${(/** @type {Event} */ event) => event.preventDefault()}
          onClick=${() => add(item)}>${name}${name !== String(item) && html` <small>${item}</small>`}</li>`,
        )}
      </ul>
      <p class="hint" role="status">${
        found.status === "failed"
          ? found.error?.message
          : found.status === "loading"
            ? "searching…"
            : !titles.length && `No item has “${text}” in its name. Enter adds it all the same, as an unknown item.`
      }</p>
    </div>
  </div>`;
}
