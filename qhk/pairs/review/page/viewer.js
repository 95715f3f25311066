// The controls of the picture area: views, flicker, amplification, zoom and pan.

const WHEEL_STEP = 60;
const PAN_STEP = 80;
const SETTINGS = "qhk review view";

const byId = (id) => document.getElementById(id);

export class Viewer {
  constructor(stage, canvas) {
    this.stage = stage;
    this.canvas = canvas;
    this.interval = 500; // milliseconds per picture
    this.timer = null;
    this.restore();
    this.wire();
    this.refresh();
  }

  get actions() {
    const stage = this.stage;
    return {
      side: () => this.setView("side"),
      flicker: () => this.setView("flicker"),
      difference: () => this.setView("difference"),
      flip: () => this.flip(),
      auto: () => this.setAuto(this.timer === null),
      less: () => this.adjust(-1),
      more: () => this.adjust(1),
      native: () => stage.setZoom(stage.zoom === 1 ? "fit" : 1),
      fit: () => stage.setZoom("fit"),
      fill: () => stage.setZoom("fill"),
      in: () => stage.step(1),
      out: () => stage.step(-1),
    };
  }

  wire() {
    const { stage, canvas, actions } = this;
    for (const button of document.querySelectorAll("[data-view]:is(button)")) {
      button.onclick = () => this.setView(button.dataset.view);
    }
    byId("auto").onclick = actions.auto;
    byId("zoom-in").onclick = actions.in;
    byId("zoom-out").onclick = actions.out;
    byId("zoom-fit").onclick = actions.fit;
    byId("zoom-fill").onclick = actions.fill;
    byId("zoom-native").onclick = actions.native;
    byId("interval").oninput = (event) => this.setInterval(Number(event.target.value));
    byId("gain").oninput = (event) => stage.setGain(Number(event.target.value));
    this.wireWheel(canvas);
    this.wireDrag(canvas);
  }

  wireWheel(canvas) {
    let turned = 0;
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      turned += event.deltaY;
      if (Math.abs(turned) < WHEEL_STEP) return;
      this.stage.step(turned < 0 ? 1 : -1, this.point(event));
      turned = 0;
    }, { passive: false });
    canvas.addEventListener("dblclick", (event) => {
      this.stage.setZoom(this.stage.zoom === 1 ? "fit" : 1, this.point(event));
    });
  }

  wireDrag(canvas) {
    let from = null;
    canvas.addEventListener("pointerdown", (event) => {
      if (!this.stage.pannable || event.button !== 0) return;
      canvas.setPointerCapture(event.pointerId);
      canvas.classList.add("grabbing");
      from = this.point(event);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!from) return;
      const to = this.point(event);
      this.stage.pan(to.x - from.x, to.y - from.y);
      from = to;
    });
    const release = () => {
      from = null;
      canvas.classList.remove("grabbing");
    };
    canvas.addEventListener("pointerup", release);
    canvas.addEventListener("pointercancel", release);
  }

  point(event) {
    const box = this.canvas.getBoundingClientRect();
    const ratio = window.devicePixelRatio;
    return { x: (event.clientX - box.left) * ratio, y: (event.clientY - box.top) * ratio };
  }

  panSteps(dx, dy) {
    const step = PAN_STEP * window.devicePixelRatio;
    this.stage.pan(dx * step, dy * step);
  }

  setView(view) {
    if (view !== "flicker") this.setAuto(false);
    this.stage.flipped = false;
    this.stage.setView(view);
    this.keep();
  }

  flip() {
    this.setAuto(false);
    // From another view the first press shows the copy: the original was in sight already.
    this.stage.view = "flicker";
    this.stage.flip();
    this.keep();
  }

  setAuto(on) {
    clearInterval(this.timer);
    this.timer = null;
    if (on) {
      this.stage.setView("flicker");
      this.timer = setInterval(() => this.stage.flip(), this.interval);
      this.keep();
    }
    this.refresh();
  }

  setInterval(milliseconds) {
    this.interval = Math.max(100, Math.min(2000, milliseconds));
    if (this.timer !== null) this.setAuto(true);
    this.keep();
    this.refresh();
  }

  adjust(direction) {
    if (this.stage.view === "difference") this.stage.setGain(this.stage.gain + direction);
    else this.setInterval(this.interval + 100 * direction);
    this.keep();
  }

  // What the reviewer chose stays for the next visit; zoom does not.
  keep() {
    const { view, gain } = this.stage;
    localStorage.setItem(SETTINGS, JSON.stringify({ view, gain, interval: this.interval }));
  }

  restore() {
    const kept = JSON.parse(localStorage.getItem(SETTINGS) ?? "{}");
    if (["side", "flicker", "difference"].includes(kept.view)) this.stage.view = kept.view;
    if (Number.isInteger(kept.gain) && kept.gain >= 0 && kept.gain <= 6) this.stage.gain = kept.gain;
    if (kept.interval >= 100 && kept.interval <= 2000) this.interval = kept.interval;
  }

  // Brings all labels in line with the stage; called after every drawing.
  refresh() {
    const { stage } = this;
    const { view, zoom, gain, flipped } = stage;
    for (const button of document.querySelectorAll("[data-view]:is(button)")) {
      button.setAttribute("aria-pressed", String(button.dataset.view === view));
    }
    for (const part of document.querySelectorAll("[data-for]")) part.hidden = part.dataset.for !== view;
    byId("auto").setAttribute("aria-pressed", String(this.timer !== null));
    byId("interval").value = this.interval;
    byId("interval-text").value = `${(this.interval / 1000).toFixed(2)} s`;
    byId("gain").value = gain;
    byId("gain-text").value = `\u00d7 ${2 ** gain}`;
    byId("zoom-text").value = `${Math.round(100 * stage.scale)} %`;
    // Shrinking averages fine degradations away: the reviewer should know.
    byId("zoom-text").classList.toggle("shrunk", stage.scale < 1);
    byId("zoom-text").title = stage.scale < 1 ? "Shrunk: fine differences may be lost. Z shows 1:1 pixels." : "";
    byId("zoom-fit").setAttribute("aria-pressed", String(zoom === "fit"));
    byId("zoom-fill").setAttribute("aria-pressed", String(zoom === "fill"));
    byId("zoom-native").setAttribute("aria-pressed", String(zoom === 1));
    byId("sides").dataset.view = view;
    byId("label-original").textContent = view === "difference" ? differenceText(stage) : "Original";
    byId("label-original").classList.toggle("on", view === "flicker" && !flipped);
    byId("label-copy").classList.toggle("on", view === "flicker" && flipped);
    this.canvas.classList.toggle("grab", stage.pannable);
    this.canvas.setAttribute("aria-label", described(stage));
  }
}

function differenceText(stage) {
  if (!stage.pictures || !stage.difference) return "Difference";
  const { largest } = stage.difference;
  return largest === 0 ? "Difference: none, the pixels are equal" : `Difference: at most ${largest} of 255`;
}

function described({ view, flipped, gain }) {
  if (view === "side") return "Original on the left, copy on the right";
  if (view === "flicker") return flipped ? "Copy" : "Original";
  return `Difference of original and copy, amplified ${2 ** gain} times`;
}
