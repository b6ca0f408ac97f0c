// Faces, and where they look.

import { colorOf } from "../dom.js";
import { count, given, numberOf, score } from "./fields.js";

export const gaze = {
  id: "gaze",
  title: "Gaze",
  needs: "gaze",
  live: "faces",

  call({ min_score, small_faces }) {
    const query = given({ min_score: numberOf(min_score), small_faces: small_faces.checked });
    return {
      path: "v1/gaze:estimate",
      fields: Object.keys(query).length ? { query } : {},
      python: {
        method: "estimate_gaze",
        named: query,
        show: ["for face in answer:", "    print(face.box, face.yaw, face.pitch, face.direction)"],
      },
    };
  },

  read({ faces }) {
    const items = faces.map((face, index) => ({
      title: `looks ${inWords(face.gaze)}`,
      detail: score(face.score),
      caption: `looks ${inWords(face.gaze)}`,
      color: colorOf(index),
      box: face.box,
      arrow: arrowOf(face),
    }));
    return { summary: items.length ? `Found ${count(items.length, "face")}.` : "Found no face.", items };
  },
};

// Yaw is positive towards the left edge of the picture, pitch upwards.
function inWords({ yaw, pitch }) {
  const degrees = (angle) => Math.round(Math.abs((angle * 180) / Math.PI));
  const parts = [];
  if (degrees(yaw)) parts.push(`${degrees(yaw)}° ${yaw > 0 ? "left" : "right"}`);
  if (degrees(pitch)) parts.push(`${degrees(pitch)}° ${pitch > 0 ? "up" : "down"}`);
  return parts.join(", ") || "into the camera";
}

// From between the eyes, as long as the face is wide if it looks across the picture.
function arrowOf({ box, landmarks, gaze: { direction } }) {
  const from = {
    x: (landmarks.right_eye.x + landmarks.left_eye.x) / 2,
    y: (landmarks.right_eye.y + landmarks.left_eye.y) / 2,
  };
  const length = box.x_max - box.x_min;
  return { from, to: { x: from.x + length * direction.x, y: from.y + length * direction.y } };
}
