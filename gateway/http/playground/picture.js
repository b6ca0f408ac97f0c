// A picture: its bytes, its size, and the name under which the server knows it.

import { ask } from "./api.js";

// What every browser can draw on: phones refuse larger canvases.
const MAX_PIXELS = 16_000_000;
const JPEG_QUALITY = 0.92;

/** A picture to ask about. url: an address of its bytes in this page. */
export class Picture {
  imageId = "";
  // Any text does, if all calls about the picture bring it. Hashes of the bytes are only for pages over https.
  #name = String(crypto.getRandomValues(new BigUint64Array(1))[0]);

  constructor(blob, name, width, height, note = "") {
    Object.assign(this, { blob, name, width, height, note, url: URL.createObjectURL(blob) });
  }

  /** Give its memory back. */
  close() {
    URL.revokeObjectURL(this.url);
  }

  /**
   * Ask the server about this picture.
   *
   * The bytes are sent once. Then the server's name for the picture stands for them, until the server says
   * that it has forgotten it. fields: the request without its image. list: whether the method takes a list of
   * images.
   */
  async ask(path, fields, list, signal, onWait) {
    const request = async () => {
      const image = this.imageId ? { image_id: this.imageId } : { encoded: await this.#base64() };
      return ask(path, { ...fields, ...(list ? { images: [image] } : { image }) }, signal, onWait, this.#name);
    };
    let answer;
    try {
      answer = await request();
    } catch (error) {
      if (error.reason !== "IMAGE_NOT_CACHED") throw error;
      this.imageId = "";
      answer = await request();
    }
    this.imageId = imageInfo(answer)?.image_id ?? this.imageId;
    return answer;
  }

  #base64() {
    return new Promise((resolve, reject) => {
      const reader = new FileReader();
      reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
      reader.onerror = () => reject(reader.error);
      reader.readAsDataURL(this.blob);
    });
  }
}

function imageInfo({ image, results: [{ page, classification } = {}] = [] }) {
  return image ?? page?.image ?? classification?.image;
}

/**
 * Read a picture from a file. One that is too large for browsers of phones is made smaller; its note says so.
 *
 * Throws Error, in words, if this browser cannot show the file.
 */
export async function readPicture(blob, name) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob);
  } catch {
    throw new Error(`This browser cannot show ${name}: it is no picture, or of a kind unknown to it.`);
  }
  const { width, height } = bitmap;
  try {
    if (width * height <= MAX_PIXELS) return new Picture(blob, name, width, height);
    const scale = Math.sqrt(MAX_PIXELS / (width * height));
    const smaller = await drawn(bitmap, Math.floor(width * scale), Math.floor(height * scale), name);
    smaller.note = `It is a smaller copy of the file, which has ${width} × ${height}.`;
    return smaller;
  } finally {
    bitmap.close();
  }
}

/** Take the frame that a video shows. */
export function frameOf(video) {
  return drawn(video, video.videoWidth, video.videoHeight, "camera.jpg");
}

async function drawn(source, width, height, name) {
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width, height });
  canvas.getContext("2d").drawImage(source, 0, 0, width, height);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", JPEG_QUALITY));
  return new Picture(blob, name.replace(/\.[^.]*$/, "") + ".jpg", width, height);
}
