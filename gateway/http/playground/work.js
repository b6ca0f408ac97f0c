// What is under way, and what the page says about it. One thing at a time: a new one ends the last.

import { byId } from "./dom.js";

let current = new AbortController();
// What "Try again" does.
let again = () => {};

/**
 * Do something that can be stopped, and say what goes wrong. action is called with an AbortSignal. retry:
 * what "Try again" does.
 */
export async function work(words, action, retry) {
  stop();
  const mine = new AbortController();
  current = mine;
  hideError();
  byId("stop").hidden = false;
  say(words);
  try {
    await action(mine.signal);
  } catch (error) {
    if (mine.signal.aborted) return;
    say("");
    showError(error, retry);
  } finally {
    if (current === mine) byId("stop").hidden = true;
  }
}

/** End what is under way. */
export function stop() {
  current.abort();
  byId("stop").hidden = true;
}

/** Whether something is under way. */
export const isBusy = () => !byId("stop").hidden;

/** Say how it goes. */
export function say(words) {
  // The camera says the same again and again: readers of screens need to hear it once.
  if (byId("status").textContent !== words) byId("status").textContent = words;
}

// The server's sentences tell programs what to do.
const KEY_WORDS = {
  KEY_MISSING: "This server asks for an API key. Type it at the top of this page.",
  KEY_UNKNOWN: "This server does not know that API key. Type another one at the top of this page.",
};

/** Say what went wrong. retry: what "Try again" does, or null where that makes no sense. */
export function showError(error, retry = null) {
  byId("error").hidden = false;
  byId("error-text").textContent = KEY_WORDS[error.reason] ?? error.message;
  byId("error-id").textContent = error.requestId ? `The server's log knows it as ${error.requestId}.` : "";
  byId("again").hidden = !retry;
  again = retry ?? (() => {});
  if (error.status === 401) {
    byId("key-box").open = true;
    byId("key").focus();
  }
}

/** Take back what was said to be wrong. */
export function hideError() {
  byId("error").hidden = true;
  again = () => {};
}

/** Try again what went wrong, if anything did. */
export const tryAgain = () => again();

byId("again").addEventListener("click", tryAgain);
byId("stop").addEventListener("click", () => {
  stop();
  say("Stopped.");
});
