// What tasks share: reading their forms, and writing numbers.

/** Return the words of an input, which has commas between them. Throws Error, in words, if there are none. */
export function wordsOf(input, what) {
  const words = input.value.split(",").map((word) => word.trim()).filter(Boolean);
  if (!words.length) throw new Error(`Write at least one ${what}.`);
  return words;
}

/** Return the number of an input, or undefined if it is empty. */
export const numberOf = (input) => (input.value === "" ? undefined : Number(input.value));

/** Return an object without what is undefined or false: the server's defaults count then. */
export const given = (fields) =>
  Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined && value !== false));

/** Write how many there are of something: "1 face", "3 faces". */
export const count = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

/** Write a probability or score. */
export const score = (value) => value.toFixed(2);
