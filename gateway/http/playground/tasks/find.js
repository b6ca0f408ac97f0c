// Words -> boxes and masks.

import { colorOf } from "../dom.js";
import { count, given, numberOf, score, wordsOf } from "./fields.js";

export const find = {
  id: "find",
  title: "Find",
  needs: "detection",
  live: "find",

  call({ words, masks, min_score }, { isLive, offered }) {
    const phrases = wordsOf(words, "word to find");
    const limits = given({ min_score: numberOf(min_score) });
    // A mask takes many times as long as a box: too long for a camera.
    const withMasks = masks.checked && !isLive && offered.has("segmentation");
    return {
      path: withMasks ? "v1/phrases:segment" : "v1/objects:detect",
      fields: { query: { phrases: { values: phrases }, ...limits } },
      python: {
        method: withMasks ? "segment_phrases" : "detect",
        values: [phrases],
        named: limits,
        show: [
          "for item in answer:",
          `    print(item.phrase, item.score, item.box${withMasks ? ", item.mask.area" : ""})`,
        ],
      },
    };
  },

  read(answer) {
    const found = answer.objects ?? answer.detections.map((detection) => ({ detection }));
    const items = found.map(({ detection, mask }) => ({
      title: detection.phrase,
      detail: score(detection.score),
      caption: `${detection.phrase} ${score(detection.score)}`,
      color: colorOf(detection.phrase_index),
      box: detection.box,
      mask,
    }));
    const summary = items.length ? `Found ${count(items.length, "thing")}.` :
      "Found nothing of these names. A smaller least score finds more.";
    return { summary, items };
  },
};
