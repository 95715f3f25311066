// Draws a pair on one canvas: side by side, one in place of the other, or their difference.
// All lengths are device pixels, so that 100 % is one picture pixel on one pixel of the screen.

const GAP = 16;
const STEPS = [0.1, 0.125, 0.167, 0.25, 0.333, 0.5, 0.667, 0.75, 1, 1.5, 2, 3, 4, 6, 8, 12, 16];

export class Stage {
  constructor(canvas, changed) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d", { alpha: false });
    this.changed = changed;
    this.pictures = null;
    this.view = "side";
    this.flipped = false; // whether flicker shows the copy
    this.zoom = "fit"; // "fit" (at most 1:1), "fill" or a scale; kept from pair to pair
    this.centre = null; // the picture's point in the middle of a pane; null: its own middle
    this.gain = 3; // the difference is amplified by 2 ** gain
    this.difference = null;
    this.background = getComputedStyle(document.documentElement).getPropertyValue("--stage").trim();
    new ResizeObserver(() => this.resize()).observe(canvas);
  }

  show(pictures) {
    this.pictures = pictures;
    this.difference = null;
    this.flipped = false;
    this.centre = null;
    this.draw();
  }

  setView(view) {
    this.view = view;
    this.draw();
  }

  flip(copy = !this.flipped) {
    this.flipped = copy;
    this.draw();
  }

  setGain(gain) {
    this.gain = Math.max(0, Math.min(6, gain));
    this.difference = null;
    this.draw();
  }

  get scale() {
    if (typeof this.zoom === "number") return this.zoom;
    if (!this.pictures) return 1;
    const { width, height } = this.size;
    const [pane] = this.panes;
    const largest = Math.min(pane.width / width, pane.height / height);
    return this.zoom === "fit" ? Math.min(1, largest) : largest;
  }

  get size() {
    const { original, copy } = this.pictures;
    return { width: Math.max(original.width, copy.width), height: Math.max(original.height, copy.height) };
  }

  get panes() {
    const { width, height } = this.canvas;
    if (this.view !== "side") return [{ x: 0, width, height, lean: 0.5 }];
    const half = Math.floor((width - GAP) / 2);
    // Pictures smaller than their pane lean towards each other: the eye has a short way.
    return [{ x: 0, width: half, height, lean: 1 }, { x: width - half, width: half, height, lean: 0 }];
  }

  // Where the picture's top left corner lies in a pane.
  offset(pane) {
    const { width, height } = this.size;
    const scale = this.scale;
    const middle = this.centre ?? { x: width / 2, y: height / 2 };
    const along = (room, length, at, lean) => {
      if (length <= room) return (room - length) * lean;
      return Math.min(0, Math.max(room - length, room / 2 - at * scale));
    };
    return {
      x: Math.round(along(pane.width, width * scale, middle.x, pane.lean)),
      y: Math.round(along(pane.height, height * scale, middle.y, 0.5)),
    };
  }

  // `at`: the point of the canvas that stays where it is, else the middle of the pane.
  setZoom(zoom, at = null) {
    if (!this.pictures) return;
    const pane = this.paneAt(at);
    const spot = at ? { x: at.x - pane.x, y: at.y } : { x: pane.width / 2, y: pane.height / 2 };
    const before = this.offset(pane);
    const fixed = { x: (spot.x - before.x) / this.scale, y: (spot.y - before.y) / this.scale };
    this.zoom = zoom;
    const scale = this.scale;
    this.centre = {
      x: fixed.x + (pane.width / 2 - spot.x) / scale,
      y: fixed.y + (pane.height / 2 - spot.y) / scale,
    };
    this.settle();
  }

  step(direction, at = null) {
    const scale = this.scale;
    const next = direction > 0
      ? STEPS.find((step) => step > scale * 1.001)
      : STEPS.findLast((step) => step < scale * 0.999);
    if (next) this.setZoom(next, at);
  }

  pan(dx, dy) {
    if (!this.pictures) return;
    const { width, height } = this.size;
    const middle = this.centre ?? { x: width / 2, y: height / 2 };
    this.centre = { x: middle.x - dx / this.scale, y: middle.y - dy / this.scale };
    this.settle();
  }

  // Takes the centre back to what can be seen, so that panning answers at once after the edge.
  settle() {
    const [pane] = this.panes;
    const { width, height } = this.size;
    const scale = this.scale;
    const { x, y } = this.offset(pane);
    const inside = (length, room, corner) => length * scale <= room ? length / 2 : (room / 2 - corner) / scale;
    this.centre = { x: inside(width, pane.width, x), y: inside(height, pane.height, y) };
    this.draw();
  }

  get pannable() {
    if (!this.pictures) return false;
    const [pane] = this.panes;
    return this.size.width * this.scale > pane.width || this.size.height * this.scale > pane.height;
  }

  paneAt(at) {
    const panes = this.panes;
    return at && panes.length > 1 && at.x >= panes[1].x ? panes[1] : panes[0];
  }

  resize() {
    const ratio = window.devicePixelRatio;
    this.canvas.width = Math.round(this.canvas.clientWidth * ratio);
    this.canvas.height = Math.round(this.canvas.clientHeight * ratio);
    this.draw();
  }

  draw() {
    const { context, canvas } = this;
    context.fillStyle = this.background;
    context.fillRect(0, 0, canvas.width, canvas.height);
    if (this.pictures) {
      const { original, copy } = this.pictures;
      const shown = {
        side: () => [original, copy],
        flicker: () => [this.flipped ? copy : original],
        difference: () => [this.amplified().canvas],
      }[this.view]();
      this.panes.forEach((pane, place) => this.drawIn(pane, shown[place]));
    }
    this.changed();
  }

  drawIn(pane, picture) {
    const { context, scale } = this;
    const { x, y } = this.offset(pane);
    context.save();
    context.beginPath();
    context.rect(pane.x, 0, pane.width, pane.height);
    context.clip();
    context.imageSmoothingEnabled = !Number.isInteger(scale); // whole factors show pixels as squares
    context.imageSmoothingQuality = "high";
    context.drawImage(picture, pane.x + x, y, picture.width * scale, picture.height * scale);
    context.restore();
  }

  // The absolute difference at native pixels, doubled `gain` times; and its largest value before that.
  amplified() {
    if (this.difference) return this.difference;
    const { width, height } = this.size;
    const canvas = new OffscreenCanvas(width, height);
    const context = canvas.getContext("2d", { alpha: false, willReadFrequently: true });
    context.drawImage(this.pictures.original, 0, 0);
    context.globalCompositeOperation = "difference";
    context.drawImage(this.pictures.copy, 0, 0);
    const values = context.getImageData(0, 0, width, height).data;
    let largest = 0;
    for (let i = 0; i < values.length; i += 4) largest = Math.max(largest, values[i], values[i + 1], values[i + 2]);
    context.globalCompositeOperation = "lighter";
    for (let doubling = 0; doubling < this.gain; doubling += 1) context.drawImage(canvas, 0, 0);
    this.difference = { canvas, largest };
    return this.difference;
  }
}
