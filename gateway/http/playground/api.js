// Asks the server. What goes wrong becomes an ApiError, whose message is for people.

const KEY = "visiongate-api-key";
const DEFAULT_PAUSE_S = 2;

/** A call that failed. status: the HTTP status, 0 if no server was reached. reason: a fixed word, or "". */
export class ApiError extends Error {
  constructor(message, { status = 0, reason = "", requestId = "" } = {}) {
    super(message);
    Object.assign(this, { status, reason, requestId });
  }
}

/** Return the API key of this tab, or "". */
export function apiKey() {
  try {
    return sessionStorage.getItem(KEY) ?? "";
  } catch {
    return keyWithoutStorage;
  }
}

// Browsers that keep nothing for pages throw.
let keyWithoutStorage = "";

/** Keep an API key until this tab is closed. */
export function setApiKey(key) {
  try {
    sessionStorage.setItem(KEY, key);
  } catch {
    keyWithoutStorage = key;
  }
}

/** Return the address of a path of the API. It is beside the page, also behind a proxy's prefix. */
export const addressOf = (path) => new URL(path, document.baseURI).href;

/**
 * Send a request, and return the answer as an object.
 *
 * While the server starts, or is full, the request is sent again after the pause that the server asks for;
 * onWait is told why, in words. body: an object for POST, nothing for GET. imageName: by which a proxy finds the
 * server that keeps the request's image. Throws ApiError, or an AbortError when the signal says so.
 */
export async function ask(path, body, signal, onWait, imageName) {
  for (;;) {
    const response = await send(path, body, signal, imageName);
    if (response.ok) return response.json();
    const error = await readError(response);
    if (response.status !== 503 && response.status !== 429) throw error;
    const pauseS = Number(response.headers.get("retry-after")) || DEFAULT_PAUSE_S;
    onWait(`${WAITS[response.status]} Asking again every ${pauseS} s. The server says: ${error.message}`);
    await pause(pauseS, signal);
  }
}

/** Return a file of this page as a Blob. Throws ApiError. */
export async function fetchFile(path) {
  const response = await send(path);
  if (!response.ok) throw await readError(response);
  return response.blob();
}

const WAITS = {
  503: "The models are loading, or are away.",
  429: "The server has no room for this call at present.",
};

async function send(path, body, signal, imageName) {
  const headers = {};
  if (imageName) headers["x-image-id"] = imageName;
  if (apiKey()) headers["x-api-key"] = apiKey();
  if (body) headers["content-type"] = "application/json";
  const options = { method: body ? "POST" : "GET", headers, signal, body: body && JSON.stringify(body) };
  try {
    return await fetch(addressOf(path), options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server cannot be reached. Does it still run?");
  }
}

async function readError(response) {
  const about = { status: response.status, requestId: response.headers.get("x-request-id") ?? "" };
  let status;
  try {
    status = await response.json();
  } catch {
    // What stands between page and server (a proxy) may answer with anything.
    return new ApiError(`The answer was ${response.status} ${response.statusText}, without a reason.`, about);
  }
  const reason = status.details?.find((detail) => detail.reason)?.reason ?? "";
  return new ApiError(status.message || `The answer was ${response.status}.`, { ...about, reason });
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
    setTimeout(resolve, seconds * 1000);
  });
}
