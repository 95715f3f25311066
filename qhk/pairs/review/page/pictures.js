// Decoded pictures of the pair in sight and of its neighbours in the queue; all others are let go.

export class Pictures {
  constructor(connection) {
    this.connection = connection;
    this.held = new Map(); // name -> promise of {original, copy}
    this.kept = null;
  }

  get(pair) {
    const name = `${pair.id} ${pair.version}`;
    if (!this.held.has(name)) {
      const loading = this.load(pair);
      loading.catch(() => this.held.delete(name));
      this.held.set(name, loading);
    }
    return this.held.get(name);
  }

  // Frees every pair but these, and loads the missing ones one after the other: none holds up the first.
  async keepOnly(pairs) {
    this.kept = pairs;
    const names = new Set(pairs.map((pair) => `${pair.id} ${pair.version}`));
    for (const [name, loading] of this.held) {
      if (names.has(name)) continue;
      this.held.delete(name);
      loading.then(close, () => {});
    }
    for (const pair of pairs) {
      await this.get(pair).catch(() => {});
      if (this.kept !== pairs) return; // the reviewer has moved on
    }
  }

  async load(pair) {
    const [original, copy] = await Promise.all(["original", "copy"].map((side) => this.decode(pair, side)));
    return { original, copy };
  }

  async decode(pair, side) {
    const blob = await this.connection.blob("/api/picture", { pair: pair.id, version: pair.version, side });
    return createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  }
}

function close({ original, copy }) {
  original.close();
  copy.close();
}
