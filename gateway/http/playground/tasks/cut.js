// What is clicked on, or has a box around it -> masks. All that points at an object is one prompt, so that
// each further click refines its mask.

import { colorOf } from "../dom.js";
import { count, score } from "./fields.js";

const LABELS = { true: "POINT_LABEL_FOREGROUND", false: "POINT_LABEL_BACKGROUND" };

class Cut {
  id = "cut";
  title = "Cut out";
  needs = "segmentation";
  isPointed = true;

  // What was pointed at, in order: {object, x, y, isOn} or {object, box}.
  #steps = [];
  #object = 0;

  /** Forget everything. */
  clear() {
    this.#steps = [];
    this.#object = 0;
  }

  /** Add a point. */
  point(x, y, isOn) {
    this.#steps.push({ object: this.#object, x, y, isOn });
  }

  /** Add a box. It takes the place of the object's last one. */
  box(box) {
    this.#steps.push({ object: this.#object, box });
  }

  /** Take back the last point or box. */
  undo() {
    this.#object = this.#steps.pop()?.object ?? 0;
  }

  /** Let what is pointed at from now on be another object. */
  next() {
    if (this.#steps.some((step) => step.object === this.#object)) this.#object += 1;
  }

  /** Whether nothing is pointed at. */
  get isEmpty() {
    return !this.#steps.length;
  }

  /** Return what `drawOverlay` draws of what is pointed at. */
  get marks() {
    const objects = this.#objects();
    const points = objects.flatMap(({ points, object }) =>
      points.map((point) => ({ ...point, color: colorOf(object) })));
    const current = objects.find(({ object }) => object === this.#object);
    return { points, box: current?.box };
  }

  #objects() {
    const objects = [...new Set(this.#steps.map((step) => step.object))];
    return objects.map((object) => {
      const steps = this.#steps.filter((step) => step.object === object);
      const box = steps.findLast((step) => step.box)?.box;
      return { object, points: steps.filter((step) => !step.box), box };
    });
  }

  call() {
    const objects = this.#objects();
    if (objects.length && objects.every(({ box, points }) => !box && points.every(({ isOn }) => !isOn))) {
      throw new Error("Click on the object first: there is only a point that is not on it.");
    }
    const promptPoint = ({ x, y, isOn }) => ({ point: { x, y }, label: LABELS[isOn] });
    const prompts = objects.map(({ points, box }) => ({
      ...(points.length && { points: points.map(promptPoint) }),
      ...(box && { box }),
    }));
    return {
      path: "v1/regions:segment",
      fields: { prompts },
      python: {
        method: "segment",
        named: namedArguments(objects),
        show: ["for [mask] in answer:", "    print(mask.area, mask.box, mask.predicted_iou)"],
      },
    };
  }

  read({ regions }) {
    const objects = this.#objects();
    const items = regions.map(({ masks: [mask] }, index) => ({
      title: `object ${index + 1}: ${count(mask.area, "pixel")}`,
      detail: `predicted IoU ${score(mask.predicted_iou)}`,
      color: colorOf(objects[index].object),
      mask,
    }));
    return { summary: items.map((item) => item.title).join(", "), items };
  }
}

// The client takes a list of each kind, with None where a prompt has none.
function namedArguments(objects) {
  const named = {};
  if (objects.some(({ box }) => box)) {
    named.boxes = objects.map(({ box }) => (box ? [box.x_min, box.y_min, box.x_max, box.y_max] : null));
  }
  if (objects.some(({ points }) => points.length)) {
    const each = (write) => objects.map(({ points }) => (points.length ? points.map(write) : null));
    named.points = each(({ x, y }) => [x, y]);
    named.labels = each(({ isOn }) => Number(isOn));
  }
  return named;
}

export const cut = new Cut();
