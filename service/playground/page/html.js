/** Markup as tagged templates; Preact puts every value into the page as text. */

import htm from "./vendor/htm.js";
import { h } from "./vendor/preact.js";

/** @type {(strings: TemplateStringsArray, ...values: unknown[]) => any} */
export const html = htm.bind(h);

/**
 * A handler that is given what stands in the field.
 * @param {(value: string) => void} act
 */
export const onValue =
  (act) =>
  (/** @type {any} */ { target }) =>
    act(target.value);
