// Which labels fit.

import { colorOf } from "../dom.js";
import { count, given, wordsOf } from "./fields.js";

export const labels = {
  id: "labels",
  title: "Labels",
  needs: "embedding",

  call({ words, template }) {
    const names = wordsOf(words, "label");
    const named = given({ prompt_template: template.value || undefined });
    return {
      path: "v1/images:classify",
      list: true,
      fields: { labels: names, ...named, strict: true },
      python: {
        method: "classify",
        values: [names],
        named,
        show: ["for score in answer[0]:", "    print(score.label, score.probability, score.similarity)"],
      },
    };
  },

  read({ results: [{ classification }] }) {
    const items = classification.labels.map(({ label, label_index, probability, similarity }) => ({
      title: label,
      detail: `${(100 * probability).toFixed(1)} % · similarity ${similarity.toFixed(3)}`,
      color: colorOf(label_index),
      share: probability,
    }));
    return { summary: `Compared the picture with ${count(items.length, "label")}.`, items };
  },
};
