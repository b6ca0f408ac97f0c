// The row of tabs. The address of the page names the chosen one, so that it can be linked to.

import { byId, make } from "./dom.js";

/** Tabs for tasks, each with the panel of its id. onChoose is called with the task. */
export class Tabs {
  #tasks;
  #buttons;
  #onChoose;

  constructor(tasks, onChoose) {
    this.#tasks = tasks;
    this.#onChoose = onChoose;
    this.#buttons = tasks.map(({ id, title }) => make("button",
      { type: "button", role: "tab", id: `tab-${id}`, "aria-controls": id }, title));
    this.#buttons.forEach((button, index) => {
      button.addEventListener("click", () => {
        // Unlike a change of location.hash, it does not scroll to the panel.
        history.pushState(null, "", `#${tasks[index].id}`);
        this.#choose();
      });
      button.addEventListener("keydown", (event) => this.#key(event, index));
      byId(tasks[index].id).setAttribute("aria-labelledby", button.id);
    });
    byId("tabs").append(...this.#buttons);
    addEventListener("popstate", () => this.#choose());
    this.#show();
  }

  /** The chosen task. */
  get task() {
    return this.#tasks.find(({ id }) => `#${id}` === location.hash) ?? this.#tasks[0];
  }

  /** Mark the tabs of tasks that the server has no model for. */
  markAbsent(isAbsent) {
    this.#tasks.forEach((task, index) => this.#buttons[index].classList.toggle("absent", isAbsent(task)));
  }

  #choose() {
    this.#show();
    this.#onChoose(this.task);
  }

  #show() {
    this.#tasks.forEach((task, index) => {
      const isChosen = task === this.task;
      this.#buttons[index].setAttribute("aria-selected", isChosen);
      // The row is one stop of the Tab key; arrow keys go along it.
      this.#buttons[index].tabIndex = isChosen ? 0 : -1;
      byId(task.id).hidden = !isChosen;
    });
  }

  #key(event, index) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    const next = this.#buttons.at((index + step) % this.#buttons.length);
    next.focus();
    next.click();
    event.preventDefault();
  }
}
