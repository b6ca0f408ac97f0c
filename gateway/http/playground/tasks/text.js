// Text, and where it stands.

import { colorOf } from "../dom.js";
import { count, given, score } from "./fields.js";

export const text = {
  id: "text",
  title: "Text",
  needs: "text",

  call({ rotated_words, group_blocks, detect_orientation }) {
    const options = given({
      rotated_words: rotated_words.checked,
      group_blocks: group_blocks.checked,
      detect_orientation: detect_orientation.checked,
    });
    return {
      path: "v1/text:recognize",
      list: true,
      fields: { ...options, strict: true },
      python: {
        method: "recognize_text",
        named: options,
        show: [
          "print(answer[0].text)",
          "for word in answer[0].words():",
          "    print(word.text, word.confidence, word.quadrilateral)",
        ],
      },
    };
  },

  read({ results: [{ page }] }) {
    const items = page.blocks.flatMap(({ lines }, block) => lines.map(({ words }) => ({
      title: words.map((word) => word.text).join(" "),
      detail: score(Math.min(...words.map((word) => word.confidence))),
      color: colorOf(block + 1),
      outlines: words.map((word) => word.quadrilateral.corners),
    })));
    const words = items.reduce((sum, item) => sum + item.outlines.length, 0);
    const turn = page.rotation_degrees;
    const turned = turn ? ` The page was turned by ${turn}° to read it.` : "";
    const read = `Read ${count(words, "word")} in ${count(items.length, "line")}.${turned}`;
    return { summary: words ? read : "There is no text.", items, text: page.text };
  },
};
