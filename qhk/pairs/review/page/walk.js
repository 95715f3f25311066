// The reviewer's way through the queue: pairs seen, the one in sight, and a short window of the next ones.

const WINDOW = 12;
const KEPT_BEHIND = 200;

export class Walk {
  constructor(connection, reviewer, { show, kind }) {
    this.connection = connection;
    this.reviewer = reviewer;
    this.show = show;
    this.kind = kind;
    this.seen = [];
    this.at = -1;
    this.ahead = [];
    this.total = 0;
    this.complete = false; // whether the window ahead holds all that was left when it was fetched
    this.filling = null;
  }

  get current() {
    return this.seen[this.at] ?? null;
  }

  get hasPrevious() {
    return this.at > 0;
  }

  // The pairs to have ready: the one in sight, the next ones, the one before.
  neighbours(count) {
    const next = [...this.seen.slice(this.at + 1), ...this.ahead].slice(0, count);
    return [this.current, ...next, this.seen[this.at - 1]].filter(Boolean);
  }

  // Moves on; null where the queue holds nothing more.
  async next() {
    if (this.at + 1 < this.seen.length) {
      this.at += 1;
      return this.current;
    }
    if (!this.ahead.length) await this.fill();
    const pair = this.ahead.shift();
    if (!pair) return null;
    this.seen.push(pair);
    if (this.seen.length > KEPT_BEHIND) this.seen.shift();
    this.at = this.seen.length - 1;
    return pair;
  }

  previous() {
    if (this.at > 0) this.at -= 1;
    return this.current;
  }

  // Goes to a pair that the server named, and from there on along the queue.
  goTo(pair) {
    this.seen = [...this.seen.slice(0, this.at + 1), pair];
    this.at = this.seen.length - 1;
    this.ahead = [];
    this.complete = false;
  }

  // Goes back to a pair whose answer was taken back, without losing what was in sight.
  returnTo(pair) {
    const place = this.seen.findLastIndex((other) => other.id === pair.id);
    if (place >= 0) {
      this.seen[place] = pair;
      this.at = place;
      return;
    }
    this.at = Math.max(this.at, 0);
    this.seen.splice(this.at, 0, pair);
  }

  // Keeps the window ahead long enough; one request at a time.
  fill() {
    this.filling ??= this.fetchAhead().finally(() => { this.filling = null; });
    return this.filling;
  }

  async topUp(count) {
    if (this.ahead.length < count && !this.complete) await this.fill();
  }

  async fetchAhead() {
    const last = this.ahead.at(-1) ?? this.seen.at(-1);
    // Pairs at hand when asking may be answered before the reply is here; they are not news either way.
    const known = new Set();
    const note = () => [this.current, ...this.ahead].forEach((pair) => pair && known.add(pair.id));
    note();
    const window = await this.connection.json("/api/queue", {
      reviewer: this.reviewer,
      show: this.show,
      type: this.kind,
      start: last ? last.place + 1 : 0,
      count: WINDOW,
    });
    this.total = window.total;
    this.complete = window.pairs.length < WINDOW;
    note();
    this.ahead.push(...window.pairs.filter((pair) => !known.has(pair.id)));
  }
}
