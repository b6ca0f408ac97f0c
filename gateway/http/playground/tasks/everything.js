// Everything in sight, without a prompt.

import { colorOf } from "../dom.js";
import { count, given, numberOf, score } from "./fields.js";

export const everything = {
  id: "everything",
  title: "Everything",
  needs: "segmentation",

  call({ points_per_side, min_mask_area }) {
    const fields = given({
      points_per_side: numberOf(points_per_side),
      min_mask_area: numberOf(min_mask_area),
    });
    return {
      path: "v1/everything:segment",
      fields,
      python: {
        method: "segment_everything",
        named: fields,
        show: ["for item in answer:", "    print(item.mask.area, item.mask.box, item.stability_score)"],
      },
    };
  },

  read({ masks }) {
    const items = masks.map(({ mask }, index) => ({
      title: count(mask.area, "pixel"),
      detail: `predicted IoU ${score(mask.predicted_iou)}`,
      color: colorOf(index),
      mask,
    }));
    const summary = items.length ? `Cut out ${count(items.length, "thing")}.` : "No mask is sure enough.";
    return { summary, items };
  },
};
