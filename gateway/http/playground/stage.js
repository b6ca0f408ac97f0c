// The stage: the picture, or the camera's, with masks and drawings on it, and what the user points at there.

import { byId } from "./dom.js";
import { paintMasks } from "./masks.js";
import { drawOverlay } from "./overlay.js";

// A pointer that moves less than this, in pixels of the screen, clicks. One that moves more drags a box.
const CLICK_PX = 6;

/**
 * What lies on the page's stage.
 *
 * listener: {point(x, y, isOn), box(box), clear()}, called for what is pointed at, in pixels of the picture;
 * isOn is undefined unless the keys say so.
 */
export class Stage {
  #root = byId("stage");
  #still = byId("still");
  #live = byId("live");
  #masks = byId("masks");
  #overlay = byId("overlay");
  #listener;
  #size = { width: 0, height: 0 };
  #items = [];
  #active = null;
  #marks = {};
  #drag = null;
  #cross = null;
  #corner = null;

  constructor(listener) {
    this.#listener = listener;
    new ResizeObserver(() => this.#draw()).observe(this.#root);
    this.#root.addEventListener("pointerdown", (event) => this.#press(event));
    this.#root.addEventListener("pointermove", (event) => this.#move(event));
    this.#root.addEventListener("pointerup", (event) => this.#release(event));
    this.#root.addEventListener("pointercancel", () => this.#forgetDrag());
    this.#root.addEventListener("keydown", (event) => this.#key(event));
    this.#root.addEventListener("focus", () => this.#showCross());
    this.#root.addEventListener("blur", () => this.#hideCross());
  }

  /** Show a picture, without the items of the last one. */
  async showPicture(picture) {
    this.#still.src = picture.url;
    this.#still.alt = `The picture ${picture.name}`;
    this.#turnTo(this.#still, { width: picture.width, height: picture.height });
    await this.#still.decode().catch(() => {});
    this.#draw();
  }

  /** Show the camera's picture, once the video element has one. */
  showVideo() {
    this.#turnTo(this.#live, { width: this.#live.videoWidth, height: this.#live.videoHeight });
  }

  #turnTo(shown, size) {
    this.#still.hidden = shown !== this.#still;
    this.#live.hidden = shown !== this.#live;
    this.#root.style.setProperty("--ratio", size.width / size.height);
    this.#size = size;
    this.#cross = null;
    this.#corner = null;
    this.setItems([]);
    this.setMarks({});
  }

  /** Whether the user may point at the picture. */
  set isPointed(isPointed) {
    this.#root.classList.toggle("pointed", isPointed);
    for (const [name, value] of Object.entries(POINTED)) {
      if (isPointed) this.#root.setAttribute(name, value);
      else this.#root.removeAttribute(name);
    }
  }

  /** Draw items: what `drawOverlay` takes, each with a `mask` or none. size: that of the picture. */
  setItems(items, size = this.#size) {
    this.#items = items;
    this.#active = null;
    this.#size = { width: size.width, height: size.height };
    this.#paint();
    this.#draw();
  }

  /** Show one item alone, by its index, or all of them with null. */
  highlight(active) {
    if (active === this.#active) return;
    this.#active = active;
    this.#paint();
    this.#draw();
  }

  /** Draw what the user points at: {points, box}. */
  setMarks(marks) {
    this.#marks = marks;
    this.#draw();
  }

  get #shown() {
    if (this.#active === null) return this.#items;
    return [this.#items[this.#active]];
  }

  #paint() {
    paintMasks(this.#masks, this.#size.width, this.#size.height, this.#shown.filter((item) => item.mask));
  }

  #draw() {
    if (!this.#size.width) return this.#overlay.replaceChildren();
    const { width, height } = this.#root.getBoundingClientRect();
    const box = this.#drag?.box ?? this.#keyBox() ?? this.#marks.box;
    const marks = { ...this.#marks, box, cross: this.#cross };
    drawOverlay(this.#overlay, { width, height }, width / this.#size.width, this.#shown, marks);
  }

  get #listens() {
    return this.#root.classList.contains("pointed") && this.#size.width > 0;
  }

  #place(event) {
    const frame = this.#root.getBoundingClientRect();
    const x = ((event.clientX - frame.left) / frame.width) * this.#size.width;
    const y = ((event.clientY - frame.top) / frame.height) * this.#size.height;
    return this.#inside(x, y);
  }

  #inside(x, y) {
    const within = (value, limit) => Math.round(Math.max(0, Math.min(limit, value)) * 10) / 10;
    return { x: within(x, this.#size.width), y: within(y, this.#size.height) };
  }

  #press(event) {
    if (!this.#listens || event.button !== 0) return;
    this.#root.setPointerCapture(event.pointerId);
    this.#drag = { from: this.#place(event), clientX: event.clientX, clientY: event.clientY, box: null };
  }

  #move(event) {
    if (!this.#drag) return;
    const way = Math.hypot(event.clientX - this.#drag.clientX, event.clientY - this.#drag.clientY);
    if (!this.#drag.box && way < CLICK_PX) return;
    this.#drag.box = boxBetween(this.#drag.from, this.#place(event));
    this.#draw();
  }

  #release(event) {
    if (!this.#drag) return;
    const { from, box } = this.#drag;
    this.#forgetDrag();
    if (box) this.#takeBox(box);
    else this.#listener.point(from.x, from.y, event.shiftKey || event.altKey ? false : undefined);
  }

  #forgetDrag() {
    this.#drag = null;
    this.#draw();
  }

  #takeBox(box) {
    if (box.x_max > box.x_min && box.y_max > box.y_min) this.#listener.box(box);
  }

  #showCross() {
    // A click brings the focus too, and needs no cross.
    if (!this.#listens || !this.#root.matches(":focus-visible")) return;
    this.#cross ??= this.#inside(this.#size.width / 2, this.#size.height / 2);
    this.#draw();
  }

  #hideCross() {
    this.#cross = null;
    this.#corner = null;
    this.#draw();
  }

  #key(event) {
    if (!this.#listens) return;
    const step = event.ctrlKey ? 1 : Math.max(this.#size.width, this.#size.height) / 50;
    const move = ARROWS[event.key];
    if (move) {
      const from = this.#cross ?? { x: this.#size.width / 2, y: this.#size.height / 2 };
      this.#cross = this.#inside(from.x + move[0] * step, from.y + move[1] * step);
      this.#draw();
    } else if (event.key === "Enter" && this.#cross) {
      this.#listener.point(this.#cross.x, this.#cross.y, event.shiftKey ? false : undefined);
    } else if (event.key.toLowerCase() === "b" && this.#cross) {
      this.#setCorner();
    } else if (event.key === "Escape") {
      this.#corner = null;
      this.#listener.clear();
    } else return;
    event.preventDefault();
  }

  #setCorner() {
    const box = this.#keyBox();
    this.#corner = box ? null : this.#cross;
    if (box) this.#takeBox(box);
  }

  #keyBox() {
    return this.#corner && this.#cross && boxBetween(this.#corner, this.#cross);
  }
}

const POINTED = {
  tabindex: "0", role: "application", "aria-describedby": "keys", "aria-label": "Picture to point at",
};

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

const boxBetween = (from, to) => ({
  x_min: Math.min(from.x, to.x), y_min: Math.min(from.y, to.y),
  x_max: Math.max(from.x, to.x), y_max: Math.max(from.y, to.y),
});
