// Draws boxes, outlines, arrows, captions and points over the picture, in the pixels of the screen: lines and
// letters have the same size whatever the size of the picture.

import { makeSvg } from "./dom.js";

const LETTERS = { height: 20, baseline: 14.5, margin: 5 };
const measure = document.createElement("canvas").getContext("2d");

/**
 * Draw items. scale: pixels of the screen for one of the picture.
 *
 * items: [{color, caption, box, outlines, arrow}], all of them optional but the colour: a box as the API
 * writes it, outlines as lists of points, an arrow as {from, to}. marks: {points, box, cross}, what the user
 * points at; points are [{x, y, isOn, color}].
 */
export function drawOverlay(svg, size, scale, items, marks) {
  svg.setAttribute("viewBox", `0 0 ${size.width} ${size.height}`);
  const shapes = items.flatMap((item) => itemShapes(item, scale));
  const taken = [];
  const captions = items.filter((item) => item.caption).map((item) => caption(item, size, scale, taken));
  svg.replaceChildren(...shapes, ...captions, ...markShapes(marks, size, scale));
}

function itemShapes({ box, outlines = [], arrow, color }, scale) {
  const shapes = outlines.map((points) => outline(points, scale, color));
  if (box) shapes.push(...rimmed("rect", rectangle(box, scale), color));
  if (arrow) shapes.push(arrowShape(arrow, scale, color));
  return shapes;
}

// A thin dark rim keeps lines visible on pictures of their colour.
function rimmed(tag, attributes, color) {
  const common = { ...attributes, fill: "none", "stroke-linejoin": "round" };
  return [
    makeSvg(tag, { ...common, stroke: "rgb(0 0 0 / 55%)", "stroke-width": 4 }),
    makeSvg(tag, { ...common, stroke: color, "stroke-width": 2.5 }),
  ];
}

function rectangle(box, scale) {
  return {
    x: box.x_min * scale,
    y: box.y_min * scale,
    width: (box.x_max - box.x_min) * scale,
    height: (box.y_max - box.y_min) * scale,
  };
}

function outline(points, scale, color) {
  const written = points.map(({ x, y }) => `${x * scale},${y * scale}`).join(" ");
  const paint = { fill: color, "fill-opacity": 0.18, stroke: color, "stroke-width": 2 };
  return makeSvg("polygon", { points: written, ...paint });
}

function arrowShape({ from, to }, scale, color) {
  const [x, y] = [from.x * scale, from.y * scale];
  const [dx, dy] = [(to.x - from.x) * scale, (to.y - from.y) * scale];
  const length = Math.hypot(dx, dy);
  // A look into the camera has no direction in the picture: it is a dot.
  const head = Math.min(length, 14);
  const turn = (Math.atan2(dy, dx) * 180) / Math.PI;
  const parts = (width, fill) => [
    makeSvg("circle", { r: 4 + width / 2, fill }),
    makeSvg("line", { x2: length - head, stroke: fill, "stroke-width": 4 + width }),
    makeSvg("path", {
      d: `M${length} 0L${length - head} ${-head * 0.5}V${head * 0.5}Z`,
      fill, stroke: fill, "stroke-width": width, "stroke-linejoin": "round",
    }),
  ];
  const transform = `translate(${x} ${y}) rotate(${turn})`;
  return makeSvg("g", { transform }, ...parts(4, color), ...parts(0, "white"));
}

// A caption is above its thing, or lower if an earlier one is in the way, and never beyond the picture.
function caption(item, size, scale, taken) {
  measure.font = "600 13px system-ui, sans-serif";
  const { height, baseline, margin } = LETTERS;
  const width = Math.min(measure.measureText(item.caption).width + 2 * margin, size.width);
  const corner = anchorOf(item);
  const x = clamp(corner.x * scale, 0, size.width - width);
  const places = [0, 1, 2, 3, 4, 5].map((step) =>
    clamp(corner.y * scale - height + step * height, 0, Math.max(0, size.height - height)));
  const isFree = (y) => !taken.some((other) =>
    x < other.x + other.width && other.x < x + width && y < other.y + height && other.y < y + height);
  const y = places.find(isFree) ?? places[0];
  taken.push({ x, y, width });
  const letters = makeSvg("text", {
    x: x + margin, y: y + baseline, fill: isLight(item.color) ? "black" : "white",
    // A caption that is wider than the picture is set narrower.
    ...(width === size.width && { textLength: width - 2 * margin, lengthAdjust: "spacingAndGlyphs" }),
  }, item.caption);
  const tag = makeSvg("rect", { x, y, width, height, rx: 3, fill: item.color });
  return makeSvg("g", { class: "caption" }, tag, letters);
}

function anchorOf({ box, outlines, mask }) {
  const place = box ?? mask?.box;
  if (place) return { x: place.x_min, y: place.y_min };
  const points = outlines.flat();
  return { x: Math.min(...points.map(({ x }) => x)), y: Math.min(...points.map(({ y }) => y)) };
}

const clamp = (value, least, most) => Math.max(least, Math.min(most, value));

function isLight(color) {
  measure.fillStyle = color;
  const [red, green, blue] = measure.fillStyle.match(/\w\w/g).map((digits) => parseInt(digits, 16));
  return 0.299 * red + 0.587 * green + 0.114 * blue > 140;
}

function markShapes({ points = [], box, cross }, size, scale) {
  const shapes = box ? rimmed("rect", { ...rectangle(box, scale), "stroke-dasharray": "6 4" }, "white") : [];
  for (const point of points) shapes.push(pointShape(point, scale));
  if (cross) {
    const [x, y] = [cross.x * scale, cross.y * scale];
    const d = `M${x} 0V${size.height}M0 ${y}H${size.width}`;
    shapes.push(makeSvg("path", { d, stroke: "black", "stroke-width": 3, opacity: 0.6 }));
    shapes.push(makeSvg("path", { d, stroke: "white", "stroke-width": 1 }));
  }
  return shapes;
}

// A plus is on the object, a minus is not: colours alone would not tell everybody.
function pointShape({ x, y, isOn, color }, scale) {
  return makeSvg("g", { transform: `translate(${x * scale} ${y * scale})` },
    makeSvg("circle", { r: 8, fill: isOn ? color : "black", stroke: "white", "stroke-width": 2 }),
    makeSvg("path", { d: isOn ? "M-4 0H4M0 -4V4" : "M-4 0H4", stroke: "white", "stroke-width": 2 }));
}
