// Writes a call as what does the same elsewhere: curl, and Python with the client.

import { addressOf, apiKey } from "./api.js";

/**
 * Write a call as a curl command with the file as a form's part.
 *
 * call: {path, list, fields}, as tasks make it.
 */
export function curl(call, file) {
  const lines = [`curl ${shell(addressOf(call.path))}`];
  if (apiKey()) lines.push('-H "x-api-key: $VISIONGATE_API_KEY"');
  lines.push(`-F ${shell(`${call.list ? "images" : "image"}=@"${file.replace(/["\\]/g, "\\$&")}"`)}`);
  // --form-string takes words as they are. -F would read a file for words that begin with @ or <.
  for (const [name, value] of parts("", call.fields)) {
    lines.push(`--form-string ${shell(`${name}=${value}`)}`);
  }
  return lines.join(" \\\n  ");
}

// The parts of a form: nested fields with dots, lists of words repeated, other lists as JSON.
function parts(prefix, fields) {
  return Object.entries(fields).flatMap(([name, value]) => {
    const path = prefix + name;
    if (Array.isArray(value)) {
      return value.every((item) => typeof item === "string") ?
        value.map((item) => [path, item]) : [[path, JSON.stringify(value)]];
    }
    if (typeof value !== "object") return [[path, String(value)]];
    return Array.isArray(value.values) ? value.values.map((item) => [path, item]) : parts(`${path}.`, value);
  });
}

const shell = (words) => `'${words.replaceAll("'", "'\\''")}'`;

/** Write a call as a Python program. call: {python: {method, values, named}, list}, as tasks make it. */
export function python(call, file) {
  const { method, values = [], named = {}, show } = call.python;
  const image = call.list ? `[${literal(file)}]` : literal(file);
  const keywords = Object.entries(named).map(([name, value]) => `${name}=${literal(value)}`);
  const written = [image, ...values.map(literal), ...keywords];
  const oneLine = `    answer = client.${method}(${written.join(", ")})`;
  return [
    "import visiongate",
    "",
    "with visiongate.Client() as client:",
    ...(oneLine.length <= MAX_LINE ? [oneLine] : [
      `    answer = client.${method}(`, ...written.map((argument) => `        ${argument},`), "    )"]),
    ...show.map((line) => `    ${line}`),
  ].join("\n");
}

const MAX_LINE = 72;

function literal(value) {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  return JSON.stringify(value);
}
