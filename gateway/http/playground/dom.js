// Makes and finds elements. Words of the server and of the user only ever become text, never HTML.

const SVG = "http://www.w3.org/2000/svg";

/** Return the element of this id. */
export const byId = (id) => document.getElementById(id);

/** Make an HTML element with attributes and children: elements or strings. */
export function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** Make an SVG element with attributes and children. */
export function makeSvg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Return the colour of the nth thing: the palette's first, then hues that never repeat. */
export function colorOf(index) {
  if (index < PALETTE.length) return PALETTE[index];
  const hue = Math.round(((index * 0.618034) % 1) * 360);
  return `hsl(${hue} 75% ${45 + 12 * (index % 3)}%)`;
}

// Easy to tell apart, also for most colour-blind people, on light and dark photos.
const PALETTE = [
  "rgb(230 70 60)", "rgb(40 130 230)", "rgb(250 175 30)", "rgb(30 170 110)",
  "rgb(165 85 215)", "rgb(20 190 205)", "rgb(240 105 175)", "rgb(140 200 45)",
];
