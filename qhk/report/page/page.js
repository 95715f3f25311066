// Draws the page from the data in it. What is looked at lives in the URL fragment, so that a view can be sent.
"use strict";

const DATA = JSON.parse(document.getElementById("data").textContent);
const LOWER_IS_BETTER = ["rmse", "mae"];
const NAMES = { srcc: "SRCC", plcc: "PLCC", plcc_fitted: "PLCC fitted", krcc: "KRCC", rmse: "RMSE", mae: "MAE", accuracy: "accuracy",
  score_entropy: "score entropy (nats)", distinct_samples: "distinct scores", within_image_std: "spread within an image" };
const byId = (id) => document.getElementById(id);

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

function shape(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

const known = (value) => value !== null && value !== undefined;
const fixed = (value, digits = 3) => (known(value) ? value.toFixed(digits) : "\u2014");
const signed = (value, digits = 3) => (known(value) ? (value >= 0 ? "+" : "\u2212") + Math.abs(value).toFixed(digits) : "\u2014");
const probability = (p) => (!known(p) ? "\u2014" : p < 0.001 ? "< 0.001" : p.toFixed(3));
const color = (method) => `var(--m${DATA.methods.indexOf(method) % 8})`;
// A long name of a set may break behind its underscores, so that eight sets and the average are in sight.
const broken = (name) => name.split(/(?<=_)/).flatMap((part) => [part, element("wbr")]);
const swatch = (method) => element("span", { class: "swatch", style: `background:${color(method)}` });

// ---- The view: what is looked at, kept in the fragment ----

const view = { metric: null, moment: null, readout: null, search: "", hidden: [], sort: "", image: "" };

function readFragment() {
  Object.assign(view, { metric: null, moment: null, readout: null, search: "", hidden: [], sort: "", image: "" });
  for (const [key, value] of new URLSearchParams(location.hash.slice(1))) {
    if (!Object.hasOwn(view, key)) continue;
    view[key] = key === "hidden" ? value.split("\n").filter((name) => DATA.methods.includes(name)) : value;
  }
  repairView();
}

function repairView() {
  // A combination that no run has becomes the first one of the metric, or the first of all.
  if (table()) return;
  const found = DATA.tables.find((entry) => entry.view.metric === view.metric) ?? DATA.tables[0];
  Object.assign(view, found?.view ?? {});
}

function fragment() {
  const values = new URLSearchParams();
  for (const [key, value] of Object.entries(view)) {
    const text = Array.isArray(value) ? value.join("\n") : value;
    if (text) values.set(key, text);
  }
  return values.toString();
}

function change(values) {
  Object.assign(view, values);
  history.replaceState(null, "", `#${fragment()}`);
  if ("image" in values) openCard(view.image);
  else draw();
}

function shownMethods() {
  const words = view.search.toLowerCase().split(/\s+/).filter(Boolean);
  return DATA.methods.filter((method) => !view.hidden.includes(method) && words.every((word) => matches(method, word)));
}

function matches(method, word) {
  const [key, value] = word.split("=");
  if (value === undefined) return method.toLowerCase().includes(word);
  return Object.entries(DATA.changes).some(
    ([name, values]) => name.toLowerCase().includes(key) && String(values[method]).toLowerCase().includes(value),
  );
}

const table = () => DATA.tables.find(({ view: v }) => ["metric", "moment", "readout"].every((key) => v[key] === view[key]));

// ---- Sections ----

const SECTIONS = [
  ["Methods", drawTable],
  ["Differences", drawDifferences],
  ["Modules", drawModules],
  ["Published", drawPublished],
  ["Curves", drawCurves],
  ["Predictions", drawPredictions],
  ["Scores", drawHistograms],
  ["Reliability", drawReliability],
  ["Perturbed", drawPerturbed],
  ["Worst images", drawWorst],
  ["Settings", drawSettings],
  ["Failures", drawFailures],
  ["Provenance", drawProvenance],
];
const slug = (name) => `section-${name.toLowerCase().replaceAll(" ", "-")}`;

function draw() {
  const position = document.activeElement?.id;
  const main = byId("main");
  const drawn = [];
  for (const [name, part] of SECTIONS) {
    const content = part();
    if (!content) continue;
    drawn.push(element("section", { id: slug(name) }, element("h2", {}, name), ...content));
  }
  main.replaceChildren(...drawn);
  byId("sections").replaceChildren(
    ...drawn.map((section) =>
      element("a", { href: "#", onclick: (event) => { event.preventDefault(); section.scrollIntoView({ behavior: "smooth" }); } },
        section.firstChild.textContent)),
  );
  drawControls();
  if (position) byId(position)?.focus();
  for (const place of main.querySelectorAll("[data-curve]")) plotCurve(place);
}

function drawControls() {
  for (const key of ["metric", "moment", "readout"]) {
    const values = [...new Set(DATA.tables.filter((t) => key === "metric" || t.view.metric === view.metric).map((t) => t.view[key]))];
    byId(key).replaceChildren(...values.map((value) => element("option", { value, selected: value === view[key] }, NAMES[value] ?? value)));
  }
  byId("search").value = view.search;
  byId("methods").replaceChildren(
    ...DATA.methods.map((method) =>
      element("label", {},
        element("input", { type: "checkbox", id: `choose-${method}`, checked: !view.hidden.includes(method), onchange: (event) =>
          change({ hidden: event.target.checked ? view.hidden.filter((name) => name !== method) : [...view.hidden, method] }) }),
        " ", swatch(method), method)),
  );
}

function sortable(name, key, title = null) {
  const [by, order] = view.sort.split(":");
  const state = by === key ? (order === "up" ? "ascending" : "descending") : null;
  return element("th", { title, "aria-sort": state, scope: "col", class: key === "average" ? "average" : null },
    element("button", { type: "button", id: `sort-${key}`, onclick: () => change({ sort: `${key}:${state === "descending" ? "up" : "down"}` }) }, ...broken(name)));
}

function sorted(methods, value) {
  const [by, order] = view.sort.split(":");
  if (!by) return methods;
  const rank = (method) => (by === "method" ? method : value(method, by));
  const direction = order === "up" ? 1 : -1;
  return [...methods].sort((a, b) => {
    const [x, y] = [rank(a), rank(b)];
    if (!known(x) || !known(y)) return known(x) ? -1 : known(y) ? 1 : 0;
    return direction * (x < y ? -1 : x > y ? 1 : 0);
  });
}

function drawTable() {
  const shown = table();
  if (!shown) return [element("p", { class: "empty" }, "No run has results yet.")];
  const columns = [...shown.benchmarks, ...(shown.unseen.length ? ["unseen"] : []), "average"];
  const methods = sorted(shownMethods(), (method, column) => shown.rows[method][column]?.mean);
  const seeds = Math.max(...DATA.methods.map((m) => DATA.runs.filter((run) => run.method === m).length));
  const tested = columns.some((column) => methods.some((method) => known(shown.rows[method][column].low)));
  const left = shown.benchmarks.filter((name) => !shown.averaged.includes(name));
  return [
    element("p", { class: "soft" },
      `${NAMES[view.metric] ?? view.metric}, ${view.moment} training, read-out ${view.readout}. ${seeds === 1 ? "One seed" : `Mean \u00b1 standard deviation over up to ${seeds} seeds`}`,
      tested ? `; below it the ${Math.round(DATA.confidence * 100)}% interval over images (whole references)${seeds === 1 ? "" : " and seeds"}. ` : ". ",
      tested ? element("span", {}, element("b", {}, "Bold"), ": best, or not told apart from it by a test corrected for all pairs and benchmarks; ",
        element("u", {}, "underlined"), ": second. No mark where no test tells the methods apart. ") : "",
      seeds === 1 ? "The intervals say nothing of other seeds, and nothing is marked. " : "",
      ...Object.entries(shown.left_out).map(([name, runs]) => `In no test on ${name}: ${Object.entries(runs).map(([run, why]) => `${run} (${why})`).join(", ")}. `),
      shown.unseen.length ? `Unseen: the mean over ${shown.unseen.join(", ")}, which no method trained on. ` : "",
      left.length ? `The average leaves out ${left.join(", ")}, which not every method has.` : ""),
    element("div", { class: "scroll" },
      element("table", {},
        element("thead", {}, element("tr", {}, sortable("method", "method"), ...columns.map((name) => sortable(name, name, known(shown.num_images[name]) ? `tested on ${shown.num_images[name]} images of ${shown.num_references[name]} references` : null)))),
        element("tbody", {}, ...methods.map((method) =>
          element("tr", { class: method === shown.reference ? "reference" : null },
            element("td", {}, swatch(method), method),
            ...columns.map((column) => cell(shown.rows[method][column], column)))),
        ))),
  ];
}

function cell(values, column) {
  const missing = Object.entries(values.missing).map(([seed, reason]) => `seed ${seed}: ${reason}`);
  const mark = values.best ? "best" : values.second ? "second" : null;
  const title = [...Object.entries(values.values).map(([seed, value]) => `seed ${seed}: ${value.toFixed(4)}`), ...missing].join("\n");
  return element("td", { title, class: column === "average" ? "average" : null },
    element("span", { class: mark }, fixed(values.mean)),
    known(values.std) ? element("span", { class: "std" }, ` \u00b1 ${fixed(values.std)}`) : null,
    known(values.low) ? element("small", {}, `[${fixed(values.low)}, ${fixed(values.high)}]`) : null,
    missing.length ? element("small", { class: "gone" }, known(values.mean) ? `${missing.length} seed${missing.length > 1 ? "s" : ""} missing` : missing[0]) : null);
}

function drawDifferences() {
  const shown = table();
  if (!shown || !Object.values(shown.against).some((columns) => Object.keys(columns).length)) return null;
  const columns = [...shown.benchmarks, ...(shown.unseen.length ? ["unseen"] : []), "average"];
  const better = LOWER_IS_BETTER.includes(view.metric) ? -1 : 1;
  return [
    element("p", { class: "soft" }, `Each method minus ${shown.reference}, with interval and p corrected by Holm over methods and benchmarks. Coloured where p is below 0.05.`),
    element("div", { class: "scroll" }, element("table", {},
      element("thead", {}, element("tr", {}, element("th", {}, "method"), ...columns.map((name) => element("th", { class: name === "average" ? "average" : null }, ...broken(name))))),
      element("tbody", {}, ...shownMethods().filter((method) => shown.against[method]).map((method) =>
        element("tr", {}, element("td", {}, swatch(method), method), ...columns.map((column) => {
          const found = shown.against[method][column];
          if (!found) return element("td", {}, "\u2014");
          const kind = known(found.p) && found.p < 0.05 ? (found.value * better > 0 ? "up" : "down") : null;
          return element("td", { class: [kind, column === "average" ? "average" : ""].filter(Boolean).join(" ") }, signed(found.value),
            element("small", {}, known(found.low) ? `[${signed(found.low)}, ${signed(found.high)}]` : "no interval"),
            element("small", {}, `p ${probability(found.p)}`));
        })))))),
  ];
}

function drawModules() {
  const found = DATA.effects.find(({ view: v }) => ["metric", "moment", "readout"].every((key) => v[key] === view[key]));
  if (!found) return null;
  const reach = Math.max(...found.rows.map((row) => Math.max(Math.abs(row.value), Math.abs(row.low ?? 0), Math.abs(row.high ?? 0))), 1e-9);
  const [width, left, step] = [720, 250, 26];
  const x = (value) => left + ((width - left - 20) * (value + reach)) / (2 * reach);
  const height = found.rows.length * step + 26;
  const drawing = shape("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": "Effects of modules with intervals" },
    shape("line", { class: "axis", x1: x(0), x2: x(0), y1: 0, y2: height - 20 }),
    ...[-reach, 0, reach].map((value) => label(signed(value), x(value), height - 6, "middle")),
    ...found.rows.flatMap((row, place) => {
      const y = place * step + 13;
      const paint = known(row.p_adjusted) && row.p_adjusted < 0.05 ? "var(--accent)" : "var(--soft)";
      return [
        label(row.name, left - 12, y + 4, "end"),
        known(row.low) ? shape("line", { x1: x(row.low), x2: x(row.high), y1: y, y2: y, stroke: paint, "stroke-width": 2 }) : shape("g"),
        shape("circle", { cx: x(row.value), cy: y, r: 4, fill: paint }),
      ];
    }));
  return [
    element("p", { class: "soft" }, `What each module adds to mean ${NAMES[view.metric] ?? view.metric}, from a linear model over all runs with a block per seed; p corrected by Holm. ${found.residual_df} degrees of freedom are left.`),
    ...found.sentences.map((text) => element("p", { class: `finding ${/no effect shown|too few runs/.test(text) ? "" : "shown"}` }, text)),
    found.not_estimable.length ? element("p", { class: "soft" }, `These runs cannot tell: ${found.not_estimable.join("; ")}.`) : null,
    drawing,
  ].filter(Boolean);
}

function label(text, x, y, anchor) {
  const node = shape("text", { x, y, "text-anchor": anchor });
  node.textContent = text;
  return node;
}

function drawPublished() {
  if (!DATA.published.length || !["srcc", "plcc"].includes(view.metric)) return null;
  const protocols = [...new Set(DATA.published.map((row) => row.protocol))];
  return [
    element("p", { class: "soft" }, `${NAMES[view.metric]} as papers print them. They are comparable only where the protocol and training set are the same; no test stands behind them.`),
    ...protocols.map((protocol) => {
      const rows = DATA.published.filter((row) => row.protocol === protocol);
      const names = [...new Set(rows.map((row) => row.benchmark))];
      const methods = [...new Set(rows.map((row) => row.method))];
      return element("details", {}, element("summary", {}, `${protocol} (${methods.length} methods)`),
        element("div", { class: "scroll" }, element("table", {},
          element("thead", {}, element("tr", {}, element("th", {}, "method"), element("th", {}, "trained on"), ...names.map((name) => element("th", {}, name)), element("th", {}, "source"))),
          element("tbody", {}, ...methods.map((method) => {
            const own = rows.filter((row) => row.method === method);
            return element("tr", {}, element("td", {}, method), element("td", {}, own[0].train_set),
              ...names.map((name) => element("td", {}, fixed(own.find((row) => row.benchmark === name)?.[view.metric]))),
              element("td", { class: "text" }, own[0].source));
          })))));
    }),
  ];
}

function drawCurves() {
  const metrics = Object.keys(DATA.curves);
  if (!metrics.length) return null;
  return [
    element("p", { class: "soft" }, "Mean over seeds; the band reaches from the lowest seed to the highest."),
    element("div", { class: "grid" }, ...metrics.map((metric) =>
      element("div", { class: "panel" }, element("h3", {}, metric), element("div", { "data-curve": metric })))),
  ];
}

function plotCurve(place) {
  const metric = place.dataset.curve;
  const methods = shownMethods().filter((method) => DATA.curves[metric][method]);
  if (!methods.length) { place.append(element("p", { class: "empty" }, "No chosen method has it.")); return; }
  const style = getComputedStyle(document.documentElement);
  const paint = (method) => style.getPropertyValue(color(method).slice(4, -1)).trim();
  const steps = [...new Set(methods.flatMap((method) => DATA.curves[metric][method].step))].sort((a, b) => a - b);
  const rows = [steps];
  const series = [{ label: "step" }];
  const bands = [];
  for (const method of methods) {
    const curve = DATA.curves[metric][method];
    const at = (name) => { const values = new Map(curve.step.map((step, i) => [step, curve[name][i]])); return steps.map((step) => values.get(step) ?? null); };
    const first = series.length;
    rows.push(at("mean"), at("high"), at("low"));
    series.push({ label: method, stroke: paint(method), width: 2, spanGaps: true, points: { show: steps.length < 3 } },
      { stroke: "transparent", spanGaps: true, points: { show: false } }, { stroke: "transparent", spanGaps: true, points: { show: false } });
    bands.push({ series: [first + 1, first + 2], fill: `${paint(method)}22` });
  }
  const ink = style.getPropertyValue("--soft").trim();
  const grid = style.getPropertyValue("--line").trim();
  const axis = { stroke: ink, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid, width: 1 }, font: "11px system-ui" };
  new uPlot({ width: Math.max(260, place.clientWidth), height: 190, series, bands, scales: { x: { time: false } }, axes: [axis, { ...axis, size: 52 }],
    legend: { show: false }, cursor: { drag: { x: true, y: false } } }, rows, place);
  place.append(element("p", { class: "soft" }, ...methods.flatMap((method) => [swatch(method), `${method}  `])));
}

function drawPredictions() {
  const found = DATA.images.filter((set) => set.images.length);
  if (!found.length) return null;
  return [
    element("p", { class: "soft" }, "Predicted score against mean opinion, of each method's first seed in its headline read-out. A point opens the image, the words and all scores."),
    element("div", { class: "grid" }, ...found.map((set) => element("div", { class: "panel" }, element("h3", {}, set.benchmark), scatter(set)))),
  ];
}

function scatter(set) {
  const [size, pad] = [330, 30];
  const at = (value) => pad + ((size - 2 * pad) * (value - 1)) / 4;
  const methods = shownMethods();
  const points = set.images.flatMap((image, place) => methods.filter((method) => known(image.scores[method]?.score)).map((method) => {
    const open = () => change({ image: `${set.benchmark}\n${image.id}` });
    const node = shape("circle", { class: "point", cx: at(image.mos), cy: size - at(image.scores[method].score), r: 3.5, fill: color(method), tabindex: place < 40 ? 0 : -1, role: "button",
      "aria-label": `${image.id}: opinion ${fixed(image.mos, 2)}, ${method} ${fixed(image.scores[method].score, 2)}`, onclick: open,
      onkeydown: (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault(); // else the same key presses the button that has the focus next
        open();
      } });
    const title = shape("title");
    title.textContent = node.getAttribute("aria-label");
    node.append(title);
    return node;
  }));
  return shape("svg", { viewBox: `0 0 ${size} ${size}`, width: size, height: size, "aria-label": `Predictions on ${set.benchmark}` },
    shape("line", { class: "axis", x1: at(1), y1: size - at(1), x2: at(5), y2: size - at(5), "stroke-dasharray": "4 4" }),
    shape("path", { class: "axis", d: `M${at(1)} ${size - at(5)}V${size - at(1)}H${at(5)}`, fill: "none" }),
    ...[1, 2, 3, 4, 5].flatMap((value) => [label(value, at(value), size - 10, "middle"), label(value, 20, size - at(value) + 4, "end")]),
    label("opinion", size / 2, size + 4, "middle"), ...points);
}

function openCard(key) {
  const dialog = byId("card");
  const [benchmark, id] = key.split("\n");
  const set = DATA.images.find((entry) => entry.benchmark === benchmark);
  const image = set?.images.find((entry) => entry.id === id);
  if (!image) { if (dialog.open) dialog.close(); return; }
  dialog.replaceChildren(
    element("button", { type: "button", style: "float:right", onclick: () => dialog.close(), "aria-label": "Close" }, "\u2715"),
    element("h3", {}, `${benchmark}: ${image.id}`),
    set.pictures[image.id] ? element("img", { src: set.pictures[image.id], alt: "", width: 224 }) : element("p", { class: "soft" }, "No picture of it in this file."),
    element("p", {}, `Mean opinion ${fixed(image.mos, 2)}. ${image.about}`),
    ...Object.entries(image.scores).flatMap(([method, said]) => [
      element("h3", {}, swatch(method), `${method}: ${fixed(said.score, 2)} (off by ${signed(said.score - image.mos, 2)})`),
      said.samples?.length > 1 ? element("p", { class: "soft" }, `samples: ${said.samples.map((s) => (known(s) ? s : "not read")).join(", ")}`) : null,
      said.text ? element("pre", {}, said.text) : null,
    ]).filter(Boolean));
  if (!dialog.open) dialog.showModal();
}

function drawHistograms() {
  const methods = shownMethods().filter((method) => DATA.histograms[method]);
  if (!methods.length) return null;
  return [
    element("p", { class: "soft" }, "How often each score from 1 to 5 was said, step by step. Few bars left at the end: the answers have collapsed."),
    ...methods.flatMap((method) => {
      const steps = DATA.histograms[method];
      const chosen = steps.length <= 8 ? steps : Array.from({ length: 8 }, (_, i) => steps[Math.round((i * (steps.length - 1)) / 7)]);
      return [element("h3", {}, swatch(method), method), element("div", { class: "strip" }, ...chosen.map(({ step, counts, distinct }) => {
        const top = Math.max(...counts, 1);
        return element("div", {}, element("div", { class: "bars", role: "img", "aria-label": `step ${step}: ${distinct} different scores` },
          ...counts.map((count) => element("i", { style: `height:${(100 * count) / top}%;background:${color(method)}` }))), `step ${step}, ${distinct} different`);
      }))];
    }),
  ];
}

function drawReliability() {
  const sets = DATA.images.filter((set) => Object.keys(set.reliability).length);
  if (!sets.length) return null;
  const columns = [["n", 0], ["distinct", 0], ["srcc", 3], ["tie_broken_srcc", 3], ["spread_and_error", 3], ["sparsification_area", 3], ["coverage", 3], ["width", 2],
    ["different_auc", 3], ["better_auc", 3], ["rmse_star", 3], ["outlier_ratio", 3]];
  const names = { n: "images", srcc: "SRCC", distinct: "different scores", tie_broken_srcc: "SRCC, ties broken", spread_and_error: "spread vs error",
    sparsification_area: "sparsification area", coverage: "coverage of 90%", width: "interval width",
    different_auc: "different or alike", better_auc: "which is better", rmse_star: "RMSE*", outlier_ratio: "outliers" };
  return [
    element("p", { class: "soft" }, "Of each method's first seed in its headline read-out. Spread vs error: SRCC of the spread over samples with the absolute error. Sparsification area: 0 if the spread orders images as their errors do, 1 if by chance. Coverage: what split-conformal intervals scaled by the spread hold on the other half of the references. Different or alike, which is better: area under the curve on pairs of images that opinions tell apart (Krasula). RMSE* and outliers: errors beyond the interval of the mean opinion, after the logistic fit (ITU-T P.1401)."),
    ...sets.flatMap((set) => [
      element("h3", {}, set.benchmark),
      element("div", { class: "scroll" }, element("table", {},
        element("thead", {}, element("tr", {}, element("th", {}, "method"), ...columns.map(([key]) => element("th", {}, names[key])))),
        element("tbody", {}, ...shownMethods().filter((method) => set.reliability[method]).map((method) =>
          element("tr", {}, element("td", {}, swatch(method), method), ...columns.map(([key, digits]) => element("td", {}, fixed(set.reliability[method][key], digits)))))))),
      unknownOpinions(set),
      parts(set),
    ].filter(Boolean)),
  ];
}

function unknownOpinions(set) {
  const reasons = new Set(Object.values(set.reliability).map((found) => found.no_opinions).filter(Boolean));
  return reasons.size ? element("p", { class: "soft" }, `Not held against how sure opinions are: ${[...reasons].join("; ")}.`) : null;
}

function drawPerturbed() {
  const rows = DATA.perturbed.filter((row) => shownMethods().some((method) => row.methods[method]));
  if (!rows.length) return null;
  const columns = ["benchmark", "copies", "moment", "method", "original above", "drop", "drop by strength", "SRCC", "unchanged"];
  return [
    element("p", { class: "soft" }, "Copies of some images, perturbed, in the headline read-out; means over runs. Original above: share of originals scored above their copy, 0.5 is chance. Drop: mean of the original's score less the copy's, over all and at each of the five strengths; SRCC of both. Unchanged: share of copies with the very score of the original."),
    element("div", { class: "scroll" }, element("table", {},
      element("thead", {}, element("tr", {}, ...columns.map((name) => element("th", {}, name)))),
      element("tbody", {}, ...rows.flatMap((row) => shownMethods().filter((method) => row.methods[method]).map((method) => {
        const found = row.methods[method];
        return element("tr", {}, element("td", {}, row.benchmark), element("td", { title: row.family }, row.kind), element("td", {}, row.moment), element("td", {}, swatch(method), method),
          element("td", { title: `${found.n_pairs} of ${found.n} copies have a readable answer` }, fixed(found.above)), element("td", {}, fixed(found.drop)),
          element("td", {}, found.drop_by_strength.length ? found.drop_by_strength.map((drop) => fixed(drop, 2)).join(" ") : "\u2014"),
          element("td", {}, fixed(found.strength_srcc)), element("td", {}, fixed(found.unchanged)));
      }))))),
  ];
}

function parts(set) {
  const methods = shownMethods().filter((method) => set.parts[method]?.length);
  if (!methods.length) return null;
  const keys = set.parts[methods[0]].map(({ by, value, n }) => ({ by, value, n }));
  return element("details", {}, element("summary", {}, `SRCC by distortion and level`),
    element("div", { class: "scroll" }, element("table", {},
      element("thead", {}, element("tr", {}, element("th", {}, "method"), ...keys.map(({ by, value, n }) => element("th", { title: `${n} images` }, by === "level" ? `level ${value}` : value)))),
      element("tbody", {}, ...methods.map((method) => element("tr", {}, element("td", {}, swatch(method), method),
        ...keys.map(({ by, value }) => element("td", {}, fixed(set.parts[method].find((part) => part.by === by && part.value === value)?.srcc)))))))));
}

function drawWorst() {
  const sets = DATA.images.filter((set) => set.worst.length);
  if (!sets.length) return null;
  return [
    element("p", { class: "soft" }, "Images on which some method is furthest from people."),
    ...sets.flatMap((set) => [element("h3", {}, set.benchmark), element("div", { class: "cards" }, ...set.worst.slice(0, 12).map((id) => {
      const image = set.images.find((entry) => entry.id === id);
      const said = shownMethods().filter((method) => known(image.scores[method]?.score)).map((method) => `${method} ${fixed(image.scores[method].score, 2)}`);
      return element("button", { type: "button", onclick: () => change({ image: `${set.benchmark}\n${id}` }) },
        set.pictures[id] ? element("img", { src: set.pictures[id], alt: "" }) : element("div", { class: "nopicture" }, "no picture"),
        element("b", {}, `opinion ${fixed(image.mos, 2)}`), element("div", { class: "soft" }, said.slice(0, 4).join("; ")));
    }))]),
  ];
}

function drawSettings() {
  const keys = Object.keys(DATA.changes);
  if (!keys.length) return null;
  const methods = shownMethods();
  return [
    element("p", { class: "soft" }, "Keys in which the methods differ. The search field filters by them: perception.form=none."),
    element("div", { class: "scroll" }, element("table", {},
      element("thead", {}, element("tr", {}, element("th", {}, "key"), ...methods.map((method) => element("th", {}, method)))),
      element("tbody", {}, ...keys.map((key) => element("tr", {}, element("td", {}, key),
        ...methods.map((method) => element("td", {}, known(DATA.changes[key][method]) ? String(DATA.changes[key][method]) : "\u2014"))))))),
  ];
}

function drawFailures() {
  if (!DATA.failures.length) return null;
  return DATA.failures.flatMap(({ run, state, cause, log }) => [
    element("h3", {}, `${run}: `, element("span", { class: "down" }, state)), element("p", {}, cause),
    log ? element("details", {}, element("summary", {}, "end of its log"), element("pre", {}, log)) : null].filter(Boolean));
}

function drawProvenance() {
  const hours = (run) => Object.values(run.seconds).reduce((sum, value) => sum + (value ?? 0), 0) / 3600;
  const total = DATA.runs.reduce((sum, run) => sum + hours(run), 0);
  return [
    element("p", { class: "soft" }, `${DATA.runs.length} runs, ${total.toFixed(2)} hours in all.`),
    element("div", { class: "scroll" }, element("table", {},
      element("thead", {}, element("tr", {}, ...["run", "state", "steps", "hours", "code", "torch", "machine", "directory"].map((name) => element("th", {}, name)))),
      element("tbody", {}, ...DATA.runs.filter((run) => shownMethods().includes(run.method)).map((run) => element("tr", {},
        element("td", {}, swatch(run.method), `${run.method}/seed${run.seed}`), element("td", {}, run.state), element("td", {}, known(run.total_steps) ? `${run.step}/${run.total_steps}` : String(run.step)),
        element("td", {}, hours(run).toFixed(2)), element("td", {}, run.code || "\u2014"), element("td", {}, run.packages.torch ?? "\u2014"),
        element("td", {}, [...run.accelerators, run.hardware.processor ?? run.hardware.cpu ?? ""].filter(Boolean).join(", ") || "\u2014"), element("td", { class: "text" }, run.directory)))))),
  ];
}

// ---- Start ----

function start() {
  const states = {};
  for (const run of DATA.runs) states[run.state] = (states[run.state] ?? 0) + 1;
  const miniature = DATA.runs.some((run) => run.miniature) ? " Measured on MINIATURE SYNTHETIC sets, which say nothing about real images." : "";
  byId("summary").textContent = `${DATA.methods.length} methods, ${DATA.runs.length} runs: ${Object.entries(states).map(([state, count]) => `${count} ${state}`).join(", ")}.${miniature}`;
  for (const key of ["metric", "moment", "readout"]) byId(key).addEventListener("change", (event) => { view[key] = event.target.value; repairView(); change({}); });
  let waiting = 0;
  byId("search").addEventListener("input", (event) => {
    clearTimeout(waiting);
    waiting = setTimeout(() => change({ search: event.target.value }), 120);
  });
  byId("link").addEventListener("click", async () => {
    await navigator.clipboard?.writeText(location.href).catch(() => {});
    byId("link").textContent = "Link copied";
    setTimeout(() => { byId("link").textContent = "Copy link to this view"; }, 1500);
  });
  byId("card").addEventListener("close", () => { if (view.image) change({ image: "" }); });
  addEventListener("keydown", (event) => {
    if (event.key === "/" && !/INPUT|SELECT/.test(document.activeElement.tagName)) { event.preventDefault(); byId("search").focus(); }
  });
  addEventListener("hashchange", () => { readFragment(); draw(); openCard(view.image); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  readFragment();
  draw();
  openCard(view.image);
}


start();
if (DATA.state) {
  setInterval(async () => {
    const answer = await fetch("/state").then((reply) => reply.json()).catch(() => null);
    if (answer && answer.state !== DATA.state && !byId("card").open) location.reload();
  }, 5000);
}
