// Wires the page: one pair in sight, one answer at a time, each on disk before the next pair shows.

import { Connection, Refused } from "./connection.js";
import { askName, askPair, element, showAgreement, showHelp } from "./dialogs.js";
import { listen } from "./keys.js";
import { Pictures } from "./pictures.js";
import { Stage } from "./stage.js";
import { Viewer } from "./viewer.js";
import { Walk } from "./walk.js";

const NAME = "qhk review name";
const PENDING = "qhk review pending";
const ANSWERS = ["same", "different", "unsure", "unusable", "skip"];
const UNSEEN_ANSWERS = ["unusable", "skip"]; // what can be said of a pair whose pictures cannot be read
const LOADING_MS = 250; // a shorter wait shows no word

const byId = (id) => document.getElementById(id);
const main = byId("stage");

class Review {
  constructor() {
    this.connection = new Connection((problem) => this.showConnection(problem));
    this.pictures = new Pictures(this.connection);
    this.stage = new Stage(byId("canvas"), () => this.viewer?.refresh());
    this.viewer = new Viewer(this.stage, byId("canvas"));
    this.session = null;
    this.reviewer = null;
    this.walk = null;
    this.ready = false; // the pair in sight can be answered
    this.seen = false; // both its pictures are drawn
    this.sending = false; // an answer is on its way
    this.problem = null; // why the server is not reached, as the last request found it
    this.shownAt = 0;
  }

  async start() {
    this.wire();
    this.session = await this.connection.json("/api/session");
    document.title = `Review of ${this.session.manifest}`;
    this.fillKinds();
    const name = localStorage.getItem(NAME);
    if (name) await this.become(name);
    else await this.changeName(true);
  }

  fillKinds() {
    byId("kind-label").hidden = this.session.types.length === 0;
    byId("kind").append(...this.session.types.map((kind) => element("option", kind, { value: kind })));
  }

  wire() {
    const actions = {
      ...Object.fromEntries(ANSWERS.map((answer) => [answer, () => this.answer(answer)])),
      ...this.viewer.actions,
      undo: () => this.undo(),
      next: () => this.move(() => this.walk.next()),
      previous: () => this.move(() => this.walk.previous()),
      jump: () => this.jump(),
      queue: () => byId("show").focus(),
      agreement: () => this.agreement(),
      help: showHelp,
    };
    listen(actions, (dx, dy) => this.viewer.panSteps(dx, dy));
    for (const button of document.querySelectorAll("[data-answer]")) {
      button.onclick = () => this.answer(button.dataset.answer);
    }
    byId("undo").onclick = actions.undo;
    byId("next").onclick = actions.next;
    byId("previous").onclick = actions.previous;
    byId("open-agreement").onclick = actions.agreement;
    byId("open-help").onclick = showHelp;
    byId("open-name").onclick = () => this.changeName(false);
    byId("show").onchange = byId("kind").onchange = () => this.restart();
    // After a click the keys belong to the pictures again; who tabs to a button keeps the focus there.
    document.addEventListener("click", (event) => {
      if (event.detail > 0 && event.target.closest("button") && !event.target.closest("dialog")) byId("canvas").focus();
    });
  }

  async changeName(required) {
    let session = null;
    const accept = async (name) => {
      try {
        session = await this.connection.json("/api/session", { reviewer: name });
        return null;
      } catch (error) {
        return error.message;
      }
    };
    const known = this.session.reviewers;
    const name = await askName({ known, value: this.reviewer ?? "", required, accept });
    if (name !== null && name !== this.reviewer) await this.become(name, session);
    byId("canvas").focus();
  }

  async become(name, session = null) {
    this.session = session ?? (await this.connection.json("/api/session", { reviewer: name }));
    this.reviewer = this.session.reviewer;
    localStorage.setItem(NAME, this.reviewer);
    byId("open-name").textContent = this.reviewer;
    await this.sendPending();
    this.showProgress(this.session.progress);
    byId("saved").textContent = "";
    await this.restart();
  }

  // An answer that no reply was heard for, because the page was closed meanwhile.
  async sendPending() {
    const text = localStorage.getItem(PENDING);
    const request = text && JSON.parse(text);
    if (!request || request.manifest !== this.session.id || request.reviewer !== this.reviewer) return;
    try {
      this.session.progress = (await this.connection.post("/api/decide", request)).progress;
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
    }
    localStorage.removeItem(PENDING);
  }

  async restart() {
    this.walk = new Walk(this.connection, this.reviewer, { show: byId("show").value, kind: byId("kind").value });
    byId("canvas").focus();
    await this.move(() => this.walk.next());
  }

  async move(step) {
    if (!this.walk || this.sending) return;
    const walk = this.walk;
    const before = walk.current;
    const pair = await step();
    if (walk !== this.walk) return; // the reviewer chose other pairs meanwhile
    if (!pair) this.showEnd();
    else if (pair !== before || !this.ready) await this.show(pair);
  }

  async show(pair) {
    this.setReady(false);
    this.showPair(pair);
    const ahead = this.session.prefetch;
    this.pictures.keepOnly(this.walk.neighbours(ahead));
    const late = setTimeout(() => {
      this.stage.show(null);
      this.showMessage("Loading\u2026");
    }, LOADING_MS);
    try {
      const pictures = await this.pictures.get(pair);
      if (this.walk.current !== pair) return;
      this.showMessage(null);
      this.stage.show(pictures);
      this.setReady(true);
    } catch (error) {
      if (this.walk.current !== pair) return;
      this.stage.show(null);
      this.showMessage(error.message);
      this.setReady(true, { seen: false });
    } finally {
      clearTimeout(late);
    }
    await this.walk.topUp(ahead + 1);
    if (this.walk.current === pair) this.pictures.keepOnly(this.walk.neighbours(ahead));
  }

  async answer(answer) {
    const pair = this.walk?.current;
    if (!pair || !this.ready || this.sending) return;
    if (!this.seen && !UNSEEN_ANSWERS.includes(answer)) {
      this.say("Not seen: unusable or skip");
      return;
    }
    const button = document.querySelector(`[data-answer="${answer}"]`);
    button.classList.add("sending");
    this.sending = true;
    const request = {
      ...this.signed(),
      pair: pair.id,
      version: pair.version,
      answer,
      seconds: (performance.now() - this.shownAt) / 1000,
    };
    localStorage.setItem(PENDING, JSON.stringify(request));
    this.showConnection(this.problem);
    try {
      const outcome = await this.connection.post("/api/decide", request);
      pair.answer = outcome.answer;
      this.showProgress(outcome.progress);
      this.say(`${number(pair.place + 1)} saved: ${answer}`);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      this.say(error.message);
      return;
    } finally {
      localStorage.removeItem(PENDING);
      button.classList.remove("sending");
      this.sending = false;
    }
    await this.move(() => this.walk.next());
  }

  async undo() {
    if (!this.walk || this.sending) return;
    this.sending = true;
    let outcome;
    try {
      outcome = await this.connection.post("/api/undo", this.signed());
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      this.say(error.message);
      return;
    } finally {
      this.sending = false;
    }
    this.showProgress(outcome.progress);
    if (!outcome.pair) {
      this.say("Taken back (the pair is not in this queue)");
      return;
    }
    this.say(`${number(outcome.pair.place + 1)} taken back`);
    this.walk.returnTo(outcome.pair);
    await this.show(outcome.pair);
  }

  signed() {
    return { manifest: this.session.id, reviewer: this.reviewer, key: crypto.randomUUID() };
  }

  async jump() {
    if (!this.walk || this.sending) return;
    let pair = null;
    await askPair(async (text) => {
      try {
        const place = /^\d+$/.test(text) ? { place: Number(text) - 1 } : { id: text };
        pair = await this.connection.json("/api/pair", { reviewer: this.reviewer, ...place });
        return null;
      } catch (error) {
        return error.message;
      }
    });
    byId("canvas").focus();
    if (!pair) return;
    this.walk.goTo(pair);
    await this.show(pair);
  }

  async agreement() {
    showAgreement(await this.connection.json("/api/agreement"));
  }

  setReady(ready, { seen = ready } = {}) {
    this.ready = ready;
    this.seen = seen;
    if (ready) this.shownAt = performance.now();
    main.setAttribute("aria-busy", String(!ready));
  }

  showPair(pair) {
    main.dataset.pair = pair.id;
    byId("place").textContent = `Pair ${number(pair.place + 1)} of ${number(this.walk.total)}`;
    const judge = pair.judge ? ` \u00b7 judge: ${pair.judge}` : "";
    const own = pair.answer ? `you answered: ${pair.answer}` : "";
    byId("about").textContent = [own, pair.degradation && pair.degradation + judge].filter(Boolean).join(" \u00b7 ");
    for (const button of document.querySelectorAll("[data-answer]")) {
      button.setAttribute("aria-pressed", String(button.dataset.answer === pair.answer));
    }
    byId("previous").disabled = !this.walk.hasPrevious;
  }

  showProgress({ answered, total, pace, answers }) {
    const given = Object.values(answers).some((count) => count > 0);
    byId("undo").disabled = !given;
    const left = total - answered;
    const rest = pace ? ` \u00b7 ${pace.toFixed(0)} per min \u00b7 ${duration(left / pace)} left` : "";
    byId("progress").textContent = `${number(answered)} answered${rest}`;
    const bar = byId("bar");
    bar.firstElementChild.style.width = `${total ? (100 * answered) / total : 0}%`;
    bar.setAttribute("aria-valuemax", String(total));
    bar.setAttribute("aria-valuenow", String(answered));
  }

  showEnd() {
    this.setReady(false);
    main.removeAttribute("data-pair");
    main.setAttribute("aria-busy", "false");
    this.stage.show(null);
    byId("about").textContent = "";
    const list = byId("show");
    byId("place").textContent = "No more pairs";
    const others = [["skipped", "Skipped by me"], ["unsure", "Unsure by me"], ["disagreements", "Disagreements"]];
    const buttons = others.filter(([show]) => show !== list.value).map(([show, text]) => {
      const button = element("button", text, { type: "button" });
      button.onclick = () => {
        list.value = show;
        this.restart();
      };
      return button;
    });
    const nothing = `Nothing more in \u201c${list.selectedOptions[0].textContent}\u201d.`;
    const next = list.value === "todo" && !byId("kind").value ? this.session.next : [];
    const then = "Every answer is in the manifest. Once all reviewers are done, end the server with Ctrl-C and run "
      + "(the filter with the judge of before):";
    this.showMessage(next.length ? `${nothing} ${then}` : nothing, buttons, next);
  }

  showMessage(text, buttons = [], commands = []) {
    const box = byId("message");
    box.hidden = text === null;
    const row = Object.assign(document.createElement("div"), { className: "row" });
    row.append(...buttons);
    const lines = commands.map((line) => element("code", line));
    box.replaceChildren(element("p", text ?? ""), ...lines, row);
  }

  showConnection(problem) {
    this.problem = problem;
    const waiting = this.sending ? " Your last answer is kept here and is sent as soon as it is back." : "";
    byId("lost").textContent = problem === null ? "" : `${problem} Trying again.${waiting}`;
    byId("lost").hidden = problem === null;
  }

  say(text) {
    byId("saved").textContent = text;
  }
}

const number = (value) => value.toLocaleString("en").replaceAll(",", "\u202f");

function duration(minutes) {
  if (minutes < 1) return "under a minute";
  if (minutes < 90) return `${Math.round(minutes)} min`;
  return `${(minutes / 60).toFixed(1)} h`;
}

new Review().start();
