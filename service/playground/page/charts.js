/** Heat maps, bars and the picture of an embedding, as SVG. Colours are those of the style sheet. */

import { html } from "./html.js";

const SHOWN_LETTERS = 18;
const MOST_POSITIONS = 48;
const [FEW, SOME] = [12, 24]; // positions, for which there is much room and some

/** @param {string} name */
export const shortened = (name) => (name.length > SHOWN_LETTERS ? `${name.slice(0, SHOWN_LETTERS - 1)}…` : name);

/** @param {number} weight */
export const digits = (weight) => weight.toFixed(2).replace(/^0\./, ".");

/** @type {(props: {columns: Column[], weights: number[][], label: string}) => any} A strip a head: how much the user embedding takes of each click. props: weights (H, columns). */
export const Strip = ({ columns, weights, label }) => {
  const [width, height, left, below] = [44, 30, 64, 18 + 4.6 * longest(columns)];
  const top = Math.max(1e-6, ...weights.flat());
  const size = [left + columns.length * width + 40, weights.length * height + below];
  return html`<${Scrolled} label=${label}>
    <svg role="img" aria-label=${label} width=${size[0]} height=${size[1]}>
      <${Hatch} id="strip-hatch" />
      ${weights.map(
        (row, head) => html`<g key=${head} transform="translate(0 ${head * height})">
          <text class="name" x=${left - 8} y=${height / 2 + 4} text-anchor="end">head ${head + 1}</text>
          ${row.map(
            (weight, at) => html`<${Cell} key=${at} x=${left + at * width + (at ? 4 : 0)} y="1"
              width=${width - 2} height=${height - 2} share=${weight / top} weight=${weight}
              masked=${columns[at].kind === "padding"} hatch="strip-hatch"
              said="head ${head + 1}, ${columns[at].name}" number />`,
          )}
        </g>`,
      )}
      ${columns.map(
        ({ name, kind }, at) => html`<text key=${at} class=${kind ? "name faint" : "name"}
          transform="translate(${left + at * width + (at ? 4 : 0) + width / 2} ${
            weights.length * height + 10
          }) rotate(40)">${shortened(name)}<title>${name}</title></text>`,
      )}
    </svg>
  </${Scrolled}>`;
};

/** @type {(props: {columns: Column[], weights: number[][], label: string, id: string}) => any} What every position looks at: queries down, keys across. props: weights (1 + L, 1 + L), without padding. */
export const FullMap = ({ columns, weights, label, id }) => {
  const first = Math.max(0, columns.length - MOST_POSITIONS);
  const shown = columns.slice(first);
  const few = shown.length <= FEW;
  const side = few ? 34 : shown.length <= SOME ? 20 : 12;
  const [left, above] = [16 + 6.6 * longest(shown), 14 + 5.2 * longest(shown)];
  const last = weights.length;
  const top = Math.max(1e-6, ...weights.slice(first).flatMap((row) => row.slice(first)));
  const power = shown.length <= SOME ? 1 : 0.5; // over a long history most weights are small
  const reach = left + shown.length * side;
  return html`<figure>
    <figcaption>${label}${first ? `, newest ${MOST_POSITIONS} of ${columns.length} positions` : ""}</figcaption>
    <${Scrolled} label=${label}>
      <svg role="img" aria-label="${label}. ${strongest(columns, weights)}" class=${side < 20 ? "tight" : ""}
        width=${reach + above} height=${above + shown.length * side + 2}>
        <${Hatch} id=${id} />
        ${shown.map((column, query) => {
          const row = first + query;
          const y = above + query * side;
          return html`<g key=${row}>
            <text class=${column.kind ? "name faint" : "name"} x=${left - 8} y=${y + side / 2 + 4}
              text-anchor="end">${shortened(column.name)}<title>${column.name}</title></text>
            ${
              (shown.length <= SOME || query % 4 === 0) &&
              html`<text class=${column.kind ? "name faint" : "name"}
                transform="translate(${left + query * side + side / 2 + 3} ${above - 6}) rotate(-48)">
                ${shortened(column.name)}<title>${column.name}</title></text>`
            }
            ${shown.map((key, at) => {
              const masked = row >= last || first + at >= last;
              if (!masked && at > query) return null;
              const weight = masked ? 0 : weights[row][first + at];
              return html`<${Cell} key=${at} x=${left + at * side} y=${y} width=${side - 1}
                height=${side - 1} share=${(weight / top) ** power} weight=${weight} number=${few}
                masked=${masked} hatch=${id} said="${column.name} looks at ${key.name}" />`;
            })}
            ${
              row < last &&
              html`<rect class="later" x=${left + (query + 1) * side} y=${y} height=${side - 1}
                width=${Math.max(0, (last - row - 1) * side - 1)}>
                <title>later than ${column.name}: never seen</title></rect>`
            }
          </g>`;
        })}
      </svg>
    </${Scrolled}>
  </figure>`;
};

/** @param {any} props */
function Cell({ x, y, width, height, share, weight, masked, hatch, said, number }) {
  const text = masked ? "masked, weight 0" : weight.toFixed(4);
  return html`<g class=${share > 0.55 ? "cell dark" : "cell"}>
    <rect class=${masked ? "masked" : "heat"} x=${x} y=${y} width=${width} height=${height} rx="2"
      fill=${masked ? `url(#${hatch})` : null} data-weight=${weight}
      fill-opacity=${masked ? null : Math.min(1, 0.04 + 0.96 * share)}>
      <title>${said}: ${text}</title></rect>
    ${
      number &&
      !masked &&
      weight >= 0.005 &&
      html`<text x=${x + width / 2} y=${Number(y) + height / 2 + 4} text-anchor="middle">
        ${digits(weight)}</text>`
    }
  </g>`;
}

/** @param {{id: string}} props */
const Hatch = ({ id }) => html`<defs><pattern id=${id} width="6" height="6"
  patternUnits="userSpaceOnUse" patternTransform="rotate(45)">
  <line class="hatch" x1="0" y1="0" x2="0" y2="6" /></pattern></defs>`;

/** @param {{label: string, children?: any}} props */
const Scrolled = ({ label, children }) =>
  html`<div class="scrolled" tabindex="0" role="group" aria-label="${label}, scrollable">${children}</div>`;

/** @type {(props: {values: number[], label: string}) => any} The numbers of an embedding as a small picture: blue above zero, orange below. */
export const Embedding = ({ values, label }) => {
  const across = 2 ** Math.ceil(Math.log2(Math.sqrt(values.length * 4)));
  const side = 288 / across;
  const top = Math.max(1e-6, ...values.map(Math.abs));
  return html`<svg role="img" aria-label=${label} class="embedding" viewBox="0 0 288 ${
    side * Math.ceil(values.length / across)
  }">
    ${values.map(
      (value, at) => html`<rect key=${at} class=${value < 0 ? "below" : "above"} x=${(at % across) * side}
        y=${Math.floor(at / across) * side} width=${side - 0.6} height=${side - 0.6}
        fill-opacity=${Math.abs(value) / top} data-value=${value}>
        <title>number ${at + 1}: ${value.toFixed(4)}</title></rect>`,
    )}
  </svg>`;
};

/**
 * A bar from the middle: to the right above zero, to the left below.
 * @param {{share: number}} props share -1 to 1 of the longest
 */
export const Bar = ({ share }) => html`<svg class="bar" viewBox="-50 0 100 10" aria-hidden="true"
  preserveAspectRatio="none"><line x1="0" y1="0" x2="0" y2="10" />
  <rect class=${share < 0 ? "below" : "above"} x=${Math.min(0, share * 50)} y="1"
    width=${Math.abs(share) * 50} height="8" /></svg>`;

/** @param {Column[]} columns */
const longest = (columns) => Math.max(5, ...columns.map(({ name }) => shortened(name).length));

/** @type {(columns: Column[], weights: number[][]) => string} */
const strongest = (columns, weights) => {
  const last = weights.length - 1;
  const most = weights[last].indexOf(Math.max(...weights[last]));
  return `${columns[last].name} looks most at ${columns[most].name}, with weight ${digits(weights[last][most])}`;
};
