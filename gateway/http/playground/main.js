// The page: which picture, which task, which call is under way.

import { ask, fetchFile, setApiKey } from "./api.js";
import { openCamera } from "./camera.js";
import { byId } from "./dom.js";
import { frameOf, readPicture } from "./picture.js";
import { showCall, showItems, showTimings } from "./results.js";
import { Stage } from "./stage.js";
import { Tabs } from "./tabs.js";
import { cut } from "./tasks/cut.js";
import { everything } from "./tasks/everything.js";
import { find } from "./tasks/find.js";
import { gaze } from "./tasks/gaze.js";
import { labels } from "./tasks/labels.js";
import { text } from "./tasks/text.js";
import { hideError, isBusy, say, showError, stop, tryAgain, work } from "./work.js";

const TASKS = [find, cut, everything, text, gaze, labels];

let picture = null;
let closeCamera = null;
// The tasks that the server has models for; null as long as it has not said so.
let offered = null;

const stage = new Stage({ point, box, clear });
const tabs = new Tabs(TASKS, chooseTask);

// ---- the server

async function readModels() {
  const tell = (words) => { byId("server").textContent = words; };
  try {
    const { models } = await ask("v1/models", null, new AbortController().signal, tell);
    offered = new Set(models.map((model) => model.task));
    const names = models.filter((it) => it.is_default).map((it) => `${it.family} ${it.variant}`);
    tell(names.length ? `Models: ${names.join(", ")}` : "This server has no models.");
    tabs.markAbsent((task) => !offered.has(task.needs));
    // The user may have asked already.
    if (!isBusy()) chooseTask(tabs.task);
  } catch (error) {
    tell("The server has not said which models it has.");
    showError(error, readModels);
  }
}

byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  setApiKey(byId("key").value.trim());
  byId("key-box").open = false;
  if (offered) tryAgain();
  else readModels();
});

// ---- the picture

async function usePicture(blob, name) {
  const next = await readPicture(blob, name).catch((error) => showError(error));
  if (next) await show(next);
}

async function show(next) {
  stop();
  stopCamera();
  picture?.close();
  picture = next;
  cut.clear();
  await stage.showPicture(picture);
  byId("save").hidden = false;
  Object.assign(byId("save"), { href: picture.url, download: picture.name });
  const { name, width, height, note } = picture;
  byId("picture-text").textContent = `${name}, ${width} × ${height} pixels. ${note}`;
  forgetResults();
  chooseTask(tabs.task);
}

async function useExample() {
  try {
    await usePicture(await fetchFile("playground/example.jpg"), "example.jpg");
  } catch (error) {
    showError(error, useExample);
  }
}

byId("file").addEventListener("change", ({ target }) => {
  if (target.files.length) usePicture(target.files[0], target.files[0].name);
  // The same file may be chosen again, after it was changed.
  target.value = "";
});
byId("example").addEventListener("click", useExample);

for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    document.body.classList.toggle("dropping", kind === "dragover");
  });
}
document.addEventListener("drop", ({ dataTransfer }) => useFirst(dataTransfer.files));
document.addEventListener("paste", ({ clipboardData }) => useFirst(clipboardData.files));

function useFirst([file]) {
  if (file) usePicture(file, file.name);
}

// ---- the camera

byId("camera").addEventListener("click", async () => {
  if (closeCamera) return picture ? show(picture) : stopCamera();
  stop();
  forgetResults();
  // The browser may ask the user first. A second click meanwhile would open the camera twice.
  byId("camera").disabled = true;
  try {
    closeCamera = await openCamera(byId("live"));
  } catch (error) {
    return showError(error);
  } finally {
    byId("camera").disabled = false;
  }
  stage.showVideo();
  byId("save").hidden = true;
  byId("picture-text").textContent = "The camera. Take a picture to keep it.";
  cameraButtons();
  chooseTask(tabs.task);
});

byId("snap").addEventListener("click", async () => show(await frameOf(byId("live"))));

function stopCamera() {
  closeCamera?.();
  closeCamera = null;
  cameraButtons();
}

function cameraButtons() {
  byId("camera").setAttribute("aria-pressed", closeCamera !== null);
  byId("camera").textContent = closeCamera ? "Turn the camera off" : "Camera";
  byId("snap").hidden = !closeCamera;
}

// ---- the task

function chooseTask(task) {
  stop();
  const isAbsent = offered !== null && !offered.has(task.needs);
  byId("missing").hidden = !isAbsent;
  if (isAbsent) {
    const others = [...offered].join(", ") || "nothing";
    byId("missing").textContent = `This server has no model for ${task.needs}. It has models for ${others}.`;
  }
  byId(task.id).hidden = isAbsent;
  stage.isPointed = Boolean(task.isPointed) && !isAbsent && !closeCamera;
  stage.setItems([]);
  stage.setMarks(task === cut ? cut.marks : {});
  forgetResults();
  if (isAbsent || !offered) return;
  if (closeCamera && task.live) watch(task);
  else if (closeCamera) say("Take the picture first: this works on still pictures.");
  else if (task === cut && picture) cut.isEmpty ? prepare() : run();
}

// SAM's encoding of the picture takes longest. It is made while the user still looks for a place to click.
async function prepare() {
  await work("Reading the picture …", async (signal) => {
    await picture.ask("v1/images:encode", {}, false, signal, say);
    say("Ready: click on something in the picture.");
  }, prepare);
}

/** Ask about the picture, and show the answer. */
function run() {
  const { task } = tabs;
  if (!picture) return say("Choose a picture first.");
  return work("Asking …", (signal) => askAndShow(task, picture, signal), run);
}

/** Ask about one picture of the camera after the other. */
function watch(task) {
  return work(`Looking for ${task.live === "faces" ? "faces" : "things"} …`, async (signal) => {
    while (!signal.aborted) {
      await untilSeen();
      const frame = await frameOf(byId("live"));
      try {
        await askAndShow(task, frame, signal);
      } finally {
        frame.close();
      }
    }
  }, () => watch(task));
}

// A page that nobody looks at asks nothing.
async function untilSeen() {
  while (document.hidden) {
    await new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
  }
}

async function askAndShow(task, frame, signal) {
  const { elements } = byId(task.id);
  const isLive = closeCamera !== null;
  const made = task.call(elements, { isLive, offered });
  const call = { ...made, fields: { ...made.fields, include_timings: true } };
  const start = performance.now();
  const answer = await frame.ask(call.path, call.fields, call.list, signal, say);
  const wholeMs = performance.now() - start;
  signal.throwIfAborted();
  const view = task.read(answer);
  stage.setItems(view.items, frame);
  showItems(view, (index) => stage.highlight(index));
  showTimings(answer.timings, wholeMs);
  showCall(call, frame.name, isLive);
  say(view.summary);
}

for (const task of TASKS) {
  byId(task.id).addEventListener("submit", (event) => {
    event.preventDefault();
    if (closeCamera) chooseTask(task);
    else run();
  });
}

// ---- pointing

function point(x, y, isOn) {
  cut.point(x, y, isOn ?? byId("cut").elements.side.value === "on");
  pointed();
}

function box(place) {
  cut.box(place);
  pointed();
}

function clear() {
  cut.clear();
  pointed();
}

function pointed() {
  stage.setMarks(cut.marks);
  if (!cut.isEmpty) return run();
  stop();
  stage.setItems([]);
  forgetResults();
  return say("Nothing is pointed at.");
}

byId("cut").elements.clear.addEventListener("click", clear);
byId("cut").elements.undo.addEventListener("click", () => { cut.undo(); pointed(); });
byId("cut").elements.next.addEventListener("click", () => {
  cut.next();
  stage.setMarks(cut.marks);
  say("Click on the next object.");
});

function forgetResults() {
  byId("results").hidden = true;
  hideError();
  say("");
}

await useExample();
readModels();
