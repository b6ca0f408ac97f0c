// Shows an answer beside the picture: its items, its text, its times, and the call itself.

import { apiKey } from "./api.js";
import { byId, make, makeSvg } from "./dom.js";
import { curl, python } from "./snippets.js";

const STAGES = [
  ["decode_ms", "decoding", "rgb(40 130 230)"],
  ["preprocess_ms", "preparing", "rgb(30 170 110)"],
  ["inference_ms", "models", "rgb(250 175 30)"],
  ["postprocess_ms", "finishing", "rgb(165 85 215)"],
];

/**
 * Show an answer as a list. view: what a task's `read` returns. onActive is called with the index of the item
 * that is looked at, or null.
 */
export function showItems(view, onActive) {
  byId("results").hidden = false;
  byId("items").replaceChildren(...view.items.map((item, index) => row(item, index, onActive)));
  byId("items").hidden = !view.items.length;
  byId("plain").hidden = !view.text;
  byId("plain-text").textContent = view.text ?? "";
}

function row({ title, detail, color, share }, index, onActive) {
  const swatch = makeSvg("svg", { width: 14, height: 14, "aria-hidden": "true" },
    makeSvg("rect", { width: 14, height: 14, rx: 3, fill: color }));
  const words = [make("span", {}, title), make("span", { class: "detail" }, detail)];
  const button = make("button", { type: "button" }, swatch, ...words);
  if (share !== undefined) {
    button.append(make("progress", { max: 1, value: share, "aria-hidden": "true" }));
  }
  for (const kind of ["mouseenter", "focus", "click"]) button.addEventListener(kind, () => onActive(index));
  for (const kind of ["mouseleave", "blur"]) button.addEventListener(kind, () => onActive(null));
  return make("li", {}, button);
}

/** Show how long the call took. timings: of the server. wholeMs: from the request's start to its end. */
export function showTimings(timings, wholeMs) {
  const times = STAGES.map(([name, words, color]) => ({ ms: timings?.[name] ?? 0, words, color }));
  const sum = times.reduce((total, { ms }) => total + ms, 0);
  const bar = makeSvg("svg", { viewBox: "0 0 100 4", preserveAspectRatio: "none", "aria-hidden": "true" });
  let x = 0;
  for (const { ms, color } of times) {
    const width = (100 * ms) / Math.max(wholeMs, sum);
    bar.append(makeSvg("rect", { x, width, height: 4, fill: color }));
    x += width;
  }
  const legend = times.map(({ ms, words, color }) =>
    make("span", {}, dot(color), ` ${words} ${milliseconds(ms)}`));
  // Stages of several pieces of work that ran side by side each count in full.
  const sideBySide = sum > wholeMs ? " Parts of it ran side by side." : "";
  const whole = `${milliseconds(wholeMs)} in all, with the way there and back.${sideBySide}`;
  byId("timings").replaceChildren(bar, make("p", { class: "legend" }, ...legend), make("p", {}, whole));
}

const dot = (color) => makeSvg("svg", { class: "dot", viewBox: "0 0 10 10", "aria-hidden": "true" },
  makeSvg("rect", { width: 10, height: 10, rx: 3, fill: color }));

const milliseconds = (ms) => `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;

/** Show the call as commands to copy. file: the picture's name. isLive: whether the camera is watched. */
export function showCall(call, file, isLive) {
  byId("curl").textContent = curl(call, file);
  byId("python").textContent = python(call, file);
  const notes = ["Python asks the gRPC port: VISIONGATE_SERVER names it, if it is not 127.0.0.1:50051."];
  if (apiKey()) notes.push("Both read the API key from VISIONGATE_API_KEY.");
  const save = isLive ? "“Take the picture”, then “Save”" : "“Save”";
  notes.push(`To get ${file}: ${save}, above the picture.`);
  byId("call-note").textContent = notes.join(" ");
}

for (const button of document.querySelectorAll(".copy")) button.addEventListener("click", () => copy(button));

async function copy(button) {
  const words = byId(button.dataset.copies);
  try {
    await navigator.clipboard.writeText(words.textContent);
    button.textContent = "Copied";
  } catch {
    // Browsers give the clipboard only to pages that come over https, or from this machine itself.
    getSelection().selectAllChildren(words);
    button.textContent = "Press Ctrl+C";
  }
  setTimeout(() => { button.textContent = "Copy"; }, 2000);
}
