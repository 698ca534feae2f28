/** Elements and words of the pages. Knows no service. */

/** An element of a tag, with properties and children. */
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

export function percent(probability) {
  if (probability === null) return "";
  if (probability > 0 && probability < 0.0005) return "< 0.1 %";
  if (probability < 1 && probability >= 0.9995) return "> 99.9 %"; // not "100.0 %", which would be wrong
  return `${(100 * probability).toFixed(1)} %`;
}

export const article = (name) => (/^[aeiou]/i.test(name) ? "an" : "a");
export const asSentence = (text) => text[0].toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
