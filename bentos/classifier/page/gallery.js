/** A row of sample pictures that is one Tab stop: arrow keys move in it, so that what follows is not twenty stops away. */

import { make } from "./elements.js";

/**
 * Fill the row.
 * @param images of the service's gallery
 * @param choose called with one of them when it is chosen
 */
export function fill(gallery, images, choose) {
  gallery.replaceChildren(...images.map((image, index) => item(image, index, choose)));
}

/** Let the keyboard move in the row. */
export function listen(gallery) {
  gallery.addEventListener("keydown", move);
  gallery.addEventListener("focusin", (event) => {
    for (const each of gallery.children) each.tabIndex = each === event.target ? 0 : -1;
  });
}

function item({ url, label }, index, choose) {
  const image = make("img", { src: url, alt: "", width: 28, height: 28, draggable: false });
  const name = `Test picture ${index + 1}: ${label}`;
  const button = make("button", { type: "button", ariaLabel: name, title: label, tabIndex: index ? -1 : 0 }, image);
  button.onclick = () => choose({ url, label });
  return button;
}

function move(event) {
  const buttons = [...event.currentTarget.children];
  const at = buttons.indexOf(event.target.closest("button"));
  const to = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: -1 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  buttons.at(to % buttons.length).focus();
}
