// Paints masks, pixel by pixel as the server gave them.

const OPACITY = 0.5;

const pixel = document.createElement("canvas").getContext("2d", { willReadFrequently: true });

/** Read COCO's compressed run lengths: how many pixels are off, on, off, …, column by column. */
export function readRuns(counts) {
  const runs = [];
  let place = 0;
  while (place < counts.length) {
    // Five bits a character, the lowest first. A sixth says that more follow; the last fifth is the sign.
    let value = 0;
    let shift = 0;
    let code;
    do {
      code = counts.charCodeAt(place) - 48;
      value |= (code & 31) << shift;
      shift += 5;
      place += 1;
    } while (code & 32);
    if (code & 16) value |= -1 << shift;
    // From the fourth on, a run is written as its difference to the last but one.
    runs.push(runs.length > 2 ? value + runs.at(-2) : value);
  }
  return runs;
}

/**
 * Paint masks on a canvas that is as large as the picture. The first mask is on top.
 *
 * layers: [{mask, color}], masks as the API writes them, colours as CSS does. Pixels of masks get the colour,
 * and those at their edges are white, to show masks of things that have their colour. All others stay clear.
 */
export function paintMasks(canvas, width, height, layers) {
  Object.assign(canvas, { width, height });
  if (!layers.length) return;
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(width, height);
  const edge = Math.max(1, Math.round(Math.max(width, height) / 600));
  for (const { mask, color } of [...layers].reverse()) paint(pixels, mask, channels(color), edge);
  context.putImageData(pixels, 0, 0);
}

function paint(pixels, { rle, box }, [red, green, blue], edge) {
  const left = box.x_min;
  const top = box.y_min;
  const columns = box.x_max - left;
  const rows = box.y_max - top;
  const inside = insideBox(rle, left, top, columns, rows);
  const isInside = (x, y) => x >= 0 && y >= 0 && x < columns && y < rows && inside[x * rows + y];
  for (let x = 0; x < columns; x++) {
    for (let y = 0; y < rows; y++) {
      if (!inside[x * rows + y]) continue;
      const isInner =
        isInside(x - edge, y) && isInside(x + edge, y) && isInside(x, y - edge) && isInside(x, y + edge);
      const place = 4 * ((top + y) * pixels.width + left + x);
      pixels.data[place] = isInner ? red : 255;
      pixels.data[place + 1] = isInner ? green : 255;
      pixels.data[place + 2] = isInner ? blue : 255;
      pixels.data[place + 3] = isInner ? 255 * OPACITY : 255;
    }
  }
}

// A mask's box holds all of its pixels, and is mostly much smaller than the picture.
function insideBox(rle, left, top, columns, rows) {
  const inside = new Uint8Array(columns * rows);
  let place = 0;
  readRuns(rle.counts).forEach((run, index) => {
    const end = place + run;
    while (index % 2 && place < end) {
      // A run may go on at the top of the next column.
      const x = Math.floor(place / rle.height);
      const stop = Math.min(end, (x + 1) * rle.height);
      const start = (x - left) * rows - x * rle.height - top;
      inside.fill(1, start + place, start + stop);
      place = stop;
    }
    place = end;
  });
  return inside;
}

function channels(color) {
  pixel.fillStyle = color;
  pixel.fillRect(0, 0, 1, 1);
  return pixel.getImageData(0, 0, 1, 1).data;
}
