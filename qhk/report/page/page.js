// Draws the page from the data in it. What is looked at lives in the URL fragment, so that a view can be sent.
"use strict";

const DATA = JSON.parse(document.getElementById("data").textContent);
const LOWER_IS_BETTER = ["rmse", "mae"];
const NAMES = { distinct_pairs: "distinct pairs of words", repeated_triples: "repeated triples of words", tokens_per_image: "tokens per image", "time/seconds_per_image": "seconds per image", tie_broken_srcc: "SRCC, ties broken", srcc: "SRCC", plcc: "PLCC", plcc_fitted: "PLCC fitted", krcc: "KRCC", rmse: "RMSE", mae: "MAE", accuracy: "accuracy",
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
const interval = (low, high, write = fixed) => (known(low) ? `[${write(low)}, ${write(high)}]` : "");
const metricName = () => NAMES[view.metric] ?? view.metric.replaceAll("_", " ");
const isBetter = (value) => (LOWER_IS_BETTER.includes(view.metric) ? value < 0 : value > 0);
const sure = (p) => known(p) && p < 0.05;
const head = (...names) => element("thead", {}, element("tr", {}, ...names.map((name) => (name instanceof Node ? name : element("th", { scope: "col" }, ...broken(name))))));
const grid = (heading, rows, kind = null) => element("div", { class: "scroll", tabindex: 0 }, element("table", { class: kind }, heading, element("tbody", {}, ...rows)));
const counted = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;
const named = (method) => element("td", {}, swatch(method), ...broken(method), badgeOf(method));
const badgeOf = (method) => collapseBadge(DATA.runs.filter((run) => run.method === method));
const clip = (score) => Math.min(5, Math.max(1, score));
// Sets whose names begin alike are told apart by the rest.
const PREFIX = (() => {
  const names = [...new Set(DATA.tables.flatMap((entry) => entry.benchmarks))];
  const first = names.length > 1 ? names[0].slice(0, names[0].indexOf("_") + 1) : "";
  return names.every((name) => name.startsWith(first)) ? first : "";
})();
const short = (benchmark) => benchmark.slice(benchmark.startsWith(PREFIX) ? PREFIX.length : 0);
// A long name of a set may break behind its underscores, so that eight sets and the average are in sight.
const broken = (name) => name.split(/(?<=_)/).flatMap((part) => [part, element("wbr")]);
// What the runs of a method were told of signs of collapse: at their last validation, or earlier.
function collapseBadge(runs) {
  const told = runs.filter((run) => run.warning || run.collapse_steps.length);
  if (!told.length) return null;
  const still = told.some((run) => run.warning);
  const said = told.map((run) => `seed ${run.seed}: ${run.warning || "gone at the end"}${run.collapse_steps.length ? `, told at step ${run.collapse_steps.join(", ")}` : ""}`);
  return element("span", { class: `badge ${still ? "down" : "gone"}`, title: said.join("\n") }, `${still ? "collapse" : "collapse, gone"}${runs.length > 1 ? ` ${told.length}/${runs.length}` : ""}`);
}
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

function repairView(kept = "metric") {
  // A combination that no run has becomes the nearest one that has what was chosen last.
  const nearness = ({ view: v }) => ["metric", "moment", "readout"].reduce((sum, key) => sum + (v[key] === view[key] ? (key === kept ? 4 : 1) : 0), 0);
  const found = [...DATA.tables].sort((a, b) => nearness(b) - nearness(a))[0];
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
    ([name, values]) => method in values && name.toLowerCase().includes(key) && String(values[method]).toLowerCase().includes(value),
  );
}

const isView = ({ view: v }) => ["metric", "moment", "readout"].every((key) => v[key] === view[key]);
const table = () => DATA.tables.find(isView);
const tableAt = (moment) => DATA.tables.find(({ view: v }) => v.metric === view.metric && v.readout === view.readout && v.moment === moment);
const columnsOf = (shown) => [...shown.benchmarks, "average", ...(shown.unseen.length ? ["unseen"] : [])];
const isMean = (column) => column === "average" || column === "unseen";

// ---- Sections ----

const SECTIONS = [
  ["answer", "Which module helps, and is it real?", drawAnswer],
  ["methods", "Methods", drawTable],
  ["differences", "Differences", drawDifferences],
  ["modules", "Modules", drawModules],
  ["published", "Published", drawPublished],
  ["curves", "Curves", drawCurves],
  ["predictions", "Predictions", drawPredictions],
  ["scores", "Scores", drawHistograms],
  ["reliability", "Uncertainty", drawReliability],
  ["perception", "Perception", drawPerception],
  ["worst", "Worst images", drawWorst],
  ["settings", "Settings", drawSettings],
  ["code", "Code", drawCode],
  ["failures", "Failed and running", drawLogs],
  ["cost", "Cost", drawCost],
  ["provenance", "Provenance", drawProvenance],
];

function draw() {
  const position = document.activeElement?.id;
  const main = byId("main");
  const drawn = [];
  const drawnBefore = main.childElementCount > 0;
  const opened = new Set([...main.querySelectorAll("details[open][data-name]")].map((part) => part.dataset.name));
  for (const [slug, name, part] of SECTIONS) {
    const content = part();
    if (!content) continue;
    drawn.push(element("section", { id: `section-${slug}` }, element("h2", {}, name), ...content.filter(Boolean)));
  }
  main.replaceChildren(...drawn);
  byId("sections").replaceChildren(
    ...drawn.map((section) =>
      element("a", { href: "#", onclick: (event) => { event.preventDefault(); section.scrollIntoView({ behavior: "smooth" }); } },
        section.id === "section-answer" ? "Answer" : section.firstChild.textContent)),
  );
  if (drawnBefore) for (const part of main.querySelectorAll("details[data-name]")) part.open = opened.has(part.dataset.name);
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
  return element("th", { title, "aria-sort": state, scope: "col", class: isMean(key) ? "average" : null },
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

// ---- The answer ----

function listed(names) {
  return names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
}

const moduleName = (row) => row.modules.map(([module, level]) => (level === "True" ? module : `${module} (${level})`)).join(" with ");

// One plain sentence from the tests, and the numbers behind it.
function verdict() {
  const shown = table();
  const effects = DATA.effects.find(isView);
  const by = (value, low, high, p) => `${signed(value)} ${interval(low, high, signed)}${known(p) ? `, p ${probability(p)}` : ""}`;
  if (effects) {
    const rows = effects.rows.filter((row) => row.modules.length === 1 || sure(row.p_adjusted));
    if (rows.every((row) => !known(row.p_adjusted))) return ["There are too few runs to tell what a module does.", rows.map((row) => `${moduleName(row)} ${signed(row.value)}`).join("; ")];
    const helps = rows.filter((row) => sure(row.p_adjusted) && isBetter(row.value));
    const hurts = rows.filter((row) => sure(row.p_adjusted) && !isBetter(row.value));
    const none = rows.filter((row) => !sure(row.p_adjusted));
    const say = (found, one, many) => (found.length ? `${listed(found.map(moduleName))} ${found.length === 1 ? one : many}` : "");
    const parts = [say(helps, "helps", "help"), say(hurts, "hurts", "hurt")].filter(Boolean);
    const nothing = parts.length ? say(none, "shows no effect", "show no effect") : `no module is shown to change ${metricName()}`;
    const text = [...parts, ...(none.length ? [nothing] : [])].join("; ");
    return [`${text[0].toUpperCase()}${text.slice(1)}.`, rows.map((row) => `${moduleName(row)} ${by(row.value, row.low, row.high, row.p_adjusted)}`).join("; ")];
  }
  const others = shownMethods().map((method) => [method, shown.against[method]?.average]).filter(([, found]) => known(found?.p));
  if (!others.length) return ["There are too few runs to tell methods apart.", ""];
  const above = others.filter(([, found]) => sure(found.p) && isBetter(found.value)).map(([method]) => method);
  const below = others.filter(([, found]) => sure(found.p) && !isBetter(found.value)).map(([method]) => method);
  const few = (names) => (names.length > 4 ? `${names.length} methods` : listed(names));
  const say = (names, what) => (names.length ? `${few(names)} ${names.length === 1 ? "is" : "are"} ${what} than ${shown.reference}` : "");
  const text = [say(above, "better"), say(below, "worse")].filter(Boolean).join("; ") || `No method is told apart from ${shown.reference}`;
  return [`${text}.`, others.slice(0, 6).map(([method, found]) => `${method} ${by(found.value, found.low, found.high, found.p)}`).join("; ")];
}

// Rows of a name, an interval with its value on a common scale, and the numbers.
function forest(rows, { zero = false, write = fixed } = {}) {
  const ends = rows.flatMap((row) => [row.value, row.low, row.high, row.before]).filter(known);
  const [least, most] = [Math.min(...ends, ...(zero ? [0] : [])), Math.max(...ends, ...(zero ? [0] : []))];
  const margin = (most - least) * 0.04 || 0.01;
  const at = (value) => `${((100 * (value - least + margin)) / (most - least + 2 * margin)).toFixed(2)}%`;
  return element("div", { class: "forest", role: "table" }, ...rows.map((row) =>
    element("div", { class: "row", role: "row" },
      element("span", { class: "name", role: "cell" }, ...(row.swatch ? [swatch(row.swatch)] : []), ...broken(row.name)),
      element("span", { class: "track", role: "presentation" },
        zero ? element("i", { class: "zero", style: `left:${at(0)}` }) : null,
        known(row.low) ? element("i", { class: "range", style: `left:${at(row.low)};right:calc(100% - ${at(row.high)});background:${row.paint}` }) : null,
        known(row.before) ? element("i", { class: "before", style: `left:${at(row.before)}`, title: `before training ${fixed(row.before)}` }) : null,
        known(row.value) ? element("i", { class: "dot", style: `left:${at(row.value)};background:${row.paint}` }) : null),
      element("span", { class: "value", role: "cell" }, write(row.value), element("small", {}, known(row.low) ? interval(row.low, row.high, write) : row.note ?? "")))));
}

function effectRows(effects) {
  return effects.rows.map((row) => ({ name: moduleName(row), value: row.value, low: row.low, high: row.high,
    paint: !sure(row.p_adjusted) ? "var(--soft)" : isBetter(row.value) ? "var(--good)" : "var(--bad)" }));
}

function drawAnswer() {
  const shown = table();
  if (!shown) return null;
  const [sentence, numbers] = verdict();
  const effects = DATA.effects.find(isView);
  const seeds = new Set(Object.values(shown.rows).flatMap((cells) => Object.keys(cells.average.values))).size;
  const before = view.moment === "after" ? tableAt("before") : null;
  const row = (cells, method, more) => ({ name: method, swatch: method, value: cells.mean, low: cells.low, high: cells.high, paint: color(method), note: Object.values(cells.missing)[0], ...more });
  const rows = sorted(shownMethods().filter((method) => known(shown.rows[method].average.mean)), (method, column) => shown.rows[method][column]?.mean)
    .map((method) => row(shown.rows[method].average, method, { before: before?.rows[method]?.average.mean }));
  const waiting = DATA.runs.filter((run) => ["pending", "running", "not started"].includes(run.state)).length;
  return [
    element("p", { class: "lead" }, sentence),
    element("p", { class: "soft wide" }, numbers ? `Mean ${metricName()} over ${counted(shown.averaged.length, "benchmark")} and ${counted(seeds, "seed")}: ${numbers}. ` : "",
      /no |No |too few/.test(sentence) ? "No effect shown is not no effect: the interval says what is still possible. " : "",
      waiting ? `${waiting} of ${DATA.runs.length} runs are not finished.` : ""),
    element("div", { class: "grid two" },
      effects ? element("figure", { class: "panel" }, element("figcaption", {}, `What each module adds to ${metricName()}`), forest(effectRows(effects), { zero: true, write: signed })) : null,
      rows.length ? element("figure", { class: "panel" },
        element("figcaption", {}, `${metricName()}, average over ${counted(shown.averaged.length, "benchmark")}`, before ? element("span", { class: "soft" }, " \u25e6 before training") : null),
        forest(rows.slice(0, 14)), rows.length > 14 ? element("p", { class: "soft" }, `${rows.length - 14} more in the table below.`) : null) : null),
  ];
}

function drawTable() {
  const shown = table();
  if (!shown) return [element("p", { class: "empty" }, "No run has results yet.")];
  const columns = columnsOf(shown);
  const methods = sorted(shownMethods(), (method, column) => shown.rows[method][column]?.mean);
  const seeds = Math.max(...DATA.methods.map((m) => DATA.runs.filter((run) => run.method === m).length));
  const tested = columns.some((column) => methods.some((method) => known(shown.rows[method][column].low)));
  const left = shown.benchmarks.filter((name) => !shown.averaged.includes(name));
  const scale = Object.fromEntries(columns.map((column) => {
    const ends = methods.map((method) => shown.rows[method][column]).flatMap((cell) => [cell?.low, cell?.high]).filter(known);
    return [column, [Math.min(...ends), Math.max(...ends)]];
  }));
  const line = (method) => element("tr", { class: method === shown.reference ? "reference" : null },
    element("td", {}, swatch(method), ...broken(method), badgeOf(method)), ...columns.map((column) => cell(shown.rows[method][column], column, scale[column], shown.answers?.[method]?.[column])));
  return [
    element("p", { class: "soft" },
      `${metricName()}, ${view.moment} training, read-out ${view.readout}. ${seeds === 1 ? "One seed" : `Mean \u00b1 standard deviation over up to ${seeds} seeds`}`,
      tested ? `; below it, drawn and in numbers, the ${Math.round(DATA.confidence * 100)}% interval over images (whole references)${seeds === 1 ? "" : " and seeds"}. ` : ". ",
      tested ? element("span", {}, element("b", {}, "Bold"), ": best, or not told apart from it by a test corrected for all pairs and benchmarks; ",
        element("u", {}, "underlined"), ": second. No mark where no test tells the methods apart. ") : "",
      seeds === 1 ? "The intervals say nothing of other seeds, and nothing is marked. " : "",
      ...Object.entries(shown.left_out).map(([name, runs]) => `In no test on ${name}: ${Object.entries(runs).map(([run, why]) => `${run} (${why})`).join(", ")}. `),
      left.length ? `The average leaves out ${left.map(short).join(", ")}, which not every method has. ` : "",
      shown.unseen.length ? `Unseen: the mean over ${shown.unseen.map(short).join(", ")}, on which no method was trained.` : ""),
    element("div", { class: "scroll", tabindex: 0, "aria-label": "Methods by benchmarks" },
      element("table", { class: "methods" },
        head(sortable("method", "method"), ...columns.map((name) => sortable(short(name), name, known(shown.num_images[name]) ? `${name}: tested on ${shown.num_images[name]} images of ${shown.num_references[name]} references` : name))),
        element("tbody", {}, ...methods.map(line)))),
    element("p", { class: "actions" }, copies("Copy as LaTeX", asLatex), copies("Copy as CSV", asCsv)),
  ];
}

function cell(values, column, [least, most], answers) {
  if (!values) return element("td", {}, "\u2014");
  const missing = Object.entries(values.missing).map(([seed, reason]) => `seed ${seed}: ${reason}`);
  const mark = values.best ? "best" : values.second ? "second" : null;
  const unread = answers ? answers.n - answers.n_parsed : 0;
  const read = answers ? [`${answers.n_parsed} of ${answers.n} images have a readable answer; ${answers.samples_failed} of ${answers.samples} answers not read, ${answers.samples_out_of_range} out of range`] : [];
  const title = [...Object.entries(values.values).map(([seed, value]) => `seed ${seed}: ${value.toFixed(4)}`), ...missing, ...read].join("\n");
  const at = (value) => (100 * (value - least)) / (most - least || 1);
  // In few words; the title has them all.
  const why = [...new Set(Object.values(values.missing))];
  return element("td", { title, class: [isMean(column) ? "average" : "", known(values.mean) ? "" : "absent"].join(" ").trim() || null },
    known(values.mean) ? element("span", { class: mark }, fixed(values.mean)) : element("span", {}, "\u2014"),
    known(values.std) ? element("span", { class: "std" }, ` \u00b1 ${fixed(values.std)}`) : null,
    known(values.low) ? element("i", { class: "mini", style: `--low:${at(values.low).toFixed(1)}%;--high:${at(values.high).toFixed(1)}%;--at:${at(values.mean).toFixed(1)}%` }) : null,
    known(values.low) ? element("small", {}, interval(values.low, values.high)) : null,
    missing.length ? element("small", { class: "gone" }, known(values.mean) ? `${missing.length} seed${missing.length > 1 ? "s" : ""} missing` : why.length > 1 ? `${why[0]}; \u2026` : why[0]) : null,
    unread ? element("small", { class: "gone" }, `${((100 * unread) / answers.n).toFixed(1)}% of images unread`)
      : answers?.samples_failed ? element("small", {}, `${((100 * answers.samples_failed) / answers.samples).toFixed(1)}% unread`) : null);
}

// ---- The table for a paper ----

function copies(text, make) {
  return element("button", { type: "button", onclick: (event) => copy(event.currentTarget, make()) }, text);
}

async function copy(button, text) {
  const before = button.textContent;
  const done = await (navigator.clipboard?.writeText(text) ?? Promise.reject()).then(() => true, () => false);
  button.textContent = done ? "Copied" : "The browser refused";
  setTimeout(() => { button.textContent = before; }, 1500);
}

function shownRows() {
  const shown = table();
  const methods = sorted(shownMethods(), (method, column) => shown.rows[method][column]?.mean);
  return { shown, columns: columnsOf(shown), rows: methods.map((method) => [method, shown.rows[method]]) };
}

function asCsv() {
  const { columns, rows } = shownRows();
  const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const lines = rows.flatMap(([method, cells]) => columns.map((column) => {
    const { mean, std, low, high, values, missing } = cells[column];
    return [quoted(method), quoted(column), mean ?? "", std ?? "", low ?? "", high ?? "", Object.keys(values).length, Object.keys(missing).length].join(",");
  }));
  return ["method,benchmark,mean,std,low,high,seeds,missing", ...lines, ""].join("\n");
}

function asLatex() {
  const { columns, rows } = shownRows();
  const escaped = (text) => text.replace(/[\\&%$#_{}~^]/g, (char) => ({ "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}" })[char] ?? `\\${char}`);
  const written = ({ mean, std, best, second }) => {
    if (!known(mean)) return "--";
    const text = best ? `\\textbf{${fixed(mean)}}` : second ? `\\underline{${fixed(mean)}}` : fixed(mean);
    return known(std) ? `${text} {\\scriptsize $\\pm$ ${fixed(std)}}` : text;
  };
  return [`% ${view.metric}, ${view.moment} training, ${view.readout}; mean and spread over seeds`, `\\begin{tabular}{l${"c".repeat(columns.length)}}`, "\\toprule",
    `${["Method", ...columns.map(escaped)].join(" & ")} \\\\`, "\\midrule",
    ...rows.map(([method, cells]) => `${[escaped(method), ...columns.map((column) => written(cells[column]))].join(" & ")} \\\\`), "\\bottomrule", "\\end{tabular}", ""].join("\n");
}

function drawDifferences() {
  const shown = table();
  const methods = shown ? shownMethods().filter((method) => Object.keys(shown.against[method] ?? {}).length) : [];
  if (!methods.length) return null;
  const columns = columnsOf(shown);
  return [
    element("p", { class: "soft" }, `Each method minus ${shown.reference}, with interval and p corrected by Holm over methods and benchmarks. Coloured where p is below 0.05.`),
    grid(head("method", ...columns.map((name) => element("th", { scope: "col", class: isMean(name) ? "average" : null }, ...broken(short(name))))),
      methods.map((method) => element("tr", {}, named(method), ...columns.map((column) => {
        const found = shown.against[method][column];
        if (!found) return element("td", { class: "absent" }, "\u2014");
        const kind = sure(found.p) ? (isBetter(found.value) ? "up" : "down") : "";
        return element("td", { class: `${kind} ${isMean(column) ? "average" : ""}`.trim() || null }, signed(found.value),
          element("small", {}, interval(found.low, found.high, signed) || "no interval"), element("small", {}, `p ${probability(found.p)}`));
      }))), "methods"),
    drawField(shown, methods),
  ];
}

// What other papers would report of the same differences.
function drawField(shown, methods) {
  const columns = columnsOf(shown);
  return element("details", { "data-name": "field tests" }, element("summary", {}, "As the field tests it: probability of improvement, Williams, Zou, F"),
    element("p", { class: "soft" }, `P: how often a run is better than one of ${shown.reference}, ties half. Of the mean answers over seeds: Williams's p, Zou's interval of the difference, and the p of equal RMSE (ITU-T P.1401). These formulas take images for independent and seeds for given, and nothing is corrected: they find more than there is where references are shared.`),
    grid(head("method", ...columns.map(short)), methods.map((method) => element("tr", {}, named(method), ...columns.map((column) => {
      const found = shown.field[method]?.[column];
      return element("td", { class: isMean(column) ? "average" : null }, `P ${fixed(shown.improvement[method]?.[column], 2)}`,
        ...(found ? [`Williams p ${probability(found.williams_p)}`, interval(found.low, found.high, signed), known(found.rmse_p) ? `RMSE p ${probability(found.rmse_p)}` : ""].filter(Boolean).map((text) => element("small", {}, text)) : []));
    }))), "methods"));
}

function drawModules() {
  const found = DATA.effects.find(isView);
  if (!found) return null;
  const unpaired = found.unpaired_seeds;
  return [
    element("p", { class: "soft" }, `What each module adds to mean ${metricName()}, from a linear model over all runs with a block per seed; p corrected by Holm. ${found.residual_df} degrees of freedom are left.`),
    unpaired.length ? element("p", { class: "gone" }, `Seed${unpaired.length > 1 ? "s" : ""} ${unpaired.join(", ")} ran with one setting of the modules only: these runs are compared as independent samples, not pair by pair.`) : null,
    ...found.sentences.map((text) => element("p", { class: `finding ${/no effect shown|too few runs/.test(text) ? "" : "shown"}` }, text)),
    found.not_estimable.length ? element("p", { class: "soft" }, `These runs cannot tell: ${found.not_estimable.join("; ")}.`) : null,
  ];
}

function label(text, x, y, anchor) {
  const node = shape("text", { x, y, "text-anchor": anchor });
  node.textContent = text;
  return node;
}

function drawPublished() {
  if (!DATA.published.length || !["srcc", "plcc"].includes(view.metric)) return null;
  const found = DATA.published.filter((row) => known(row[view.metric]));
  const protocols = [...new Set(found.map((row) => row.protocol))];
  return [
    element("p", { class: "soft" }, `${metricName()} as papers print them. They are comparable only where the protocol and training set are the same; no test stands behind them.`),
    ...protocols.map((protocol) => {
      const rows = found.filter((row) => row.protocol === protocol);
      const names = [...new Set(rows.map((row) => row.benchmark))];
      const methods = [...new Set(rows.map((row) => row.method))];
      return element("details", { "data-name": `published ${protocol}` }, element("summary", {}, `${protocol} (${counted(methods.length, "method")})`),
        grid(head("method", "trained on", ...names, "source"), methods.map((method) => {
          const own = rows.filter((row) => row.method === method);
          return element("tr", {}, element("td", {}, method), element("td", {}, own[0].train_set),
            ...names.map((name) => element("td", {}, fixed(own.find((row) => row.benchmark === name)?.[view.metric]))), element("td", { class: "text" }, own[0].source));
        })));
    }),
  ];
}

function drawCurves() {
  const metrics = Object.keys(DATA.curves);
  if (!metrics.length) return null;
  return [
    element("p", { class: "soft" }, "Mean over seeds; the band reaches from the lowest seed to the highest."),
    element("p", { class: "legend" }, ...shownMethods().filter((method) => metrics.some((metric) => DATA.curves[metric][method])).map((method) => element("span", {}, swatch(method), method, " ", badgeOf(method)))),
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
    series.push({ label: method, stroke: paint(method), width: 2, dash: DATA.methods.indexOf(method) < 8 ? [] : [6, 4], spanGaps: true, points: { show: steps.length < 3 } },
      { stroke: "transparent", spanGaps: true, points: { show: false } }, { stroke: "transparent", spanGaps: true, points: { show: false } });
    bands.push({ series: [first + 1, first + 2], fill: `${paint(method)}22` });
  }
  const ink = style.getPropertyValue("--soft").trim();
  const grid = style.getPropertyValue("--line").trim();
  const axis = { stroke: ink, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid, width: 1 }, font: "11px system-ui" };
  new uPlot({ width: Math.max(260, place.clientWidth), height: 190, series, bands, scales: { x: { time: false } }, axes: [{ ...axis, size: 30 }, { ...axis, size: 52 }],
    legend: { show: false }, cursor: { drag: { x: true, y: false } } }, rows, place);
}

function drawPredictions() {
  const found = DATA.images.filter((set) => set.images.length);
  if (!found.length) return null;
  return [
    element("p", { class: "soft" }, "Predicted score against mean opinion, of each method's first seed in its headline read-out. A point opens the image, the words and all scores."),
    element("div", { class: "grid" }, ...found.map((set) => element("div", { class: "panel" }, element("h3", {}, short(set.benchmark)), scatter(set)))),
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
  return shape("svg", { viewBox: `0 0 ${size} ${size + 10}`, width: "100%", "aria-label": `Predictions on ${set.benchmark}` },
    shape("line", { class: "axis", x1: at(1), y1: size - at(1), x2: at(5), y2: size - at(5), "stroke-dasharray": "4 4" }),
    shape("path", { class: "axis", d: `M${at(1)} ${size - at(5)}V${size - at(1)}H${at(5)}`, fill: "none" }),
    ...[1, 2, 3, 4, 5].flatMap((value) => [label(value, at(value), size - 10, "middle"), label(value, 20, size - at(value) + 4, "end")]),
    label("mean opinion", size / 2, size + 6, "middle"), turned("predicted score", 4, size / 2), ...points);
}

function turned(text, x, y) {
  const node = label(text, x, y, "middle");
  node.setAttribute("transform", `rotate(-90 ${x} ${y})`);
  return node;
}

// What was said, and where it counts as the end of the scale also that.
const sample = (said) => (!known(said) ? "not read" : clip(said) === said ? String(said) : `${clip(said)} (said ${said})`);

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
      said.samples?.length > 1 ? element("p", { class: "soft" }, `samples: ${said.samples.map(sample).join(", ")}`) : null,
      said.text ? element("pre", {}, said.text) : null,
    ]).filter(Boolean));
  if (!dialog.open) dialog.showModal();
}

function drawHistograms() {
  const methods = shownMethods().filter((method) => DATA.histograms[method]);
  if (!methods.length) return null;
  const sources = [...new Set(methods.flatMap((method) => DATA.histograms[method].map(({ source }) => source)))].sort((a, b) => (b === "training") - (a === "training"));
  return [
    element("p", { class: "soft" }, "How often each score from 1 to 5 was said, step by step. Few bars left at the end: the answers have collapsed."),
    ...sources.map((source, place) => element("details", { "data-name": `scores ${source}`, open: place === 0 },
      element("summary", {}, source === "training" ? "Samples of training" : `Samples of ${source}`),
      ...methods.flatMap((method) => {
        const found = DATA.histograms[method].find((entry) => entry.source === source);
        if (!found) return [];
        return [element("h3", {}, swatch(method), method), element("div", { class: "strip" }, ...found.steps.map(({ step, counts, distinct }) => {
          const top = Math.max(...counts, 1);
          return element("div", {}, element("div", { class: "bars", role: "img", "aria-label": `step ${step}: ${distinct} different scores` },
            ...counts.map((count) => element("i", { style: `height:${(100 * count) / top}%;background:${color(method)}` }))), `step ${step}, ${distinct} different`);
        }))];
      }))),
  ];
}

function drawReliability() {
  const sets = DATA.images.filter((set) => Object.keys(set.reliability).length);
  if (!sets.length) return null;
  const columns = [["n", 0, "images"], ["distinct", 0, "different scores"], ["srcc", 3, "SRCC"], ["tie_broken_srcc", 3, "SRCC, ties broken"], ["spread_and_error", 3, "spread vs error"],
    ["sparsification_area", 3, "sparsification area"], ["coverage", 3, "coverage of 90%"], ["width", 2, "interval width"],
    ["different_auc", 3, "different or similar, AUC"], ["better_auc", 3, "better or worse, AUC"], ["rmse_star", 3, "RMSE*"], ["outlier_ratio", 3, "outlier ratio"]];
  return [
    element("p", { class: "soft" }, "Of each method's first seed in its headline read-out. Spread vs error: SRCC of the spread over samples with the absolute error. Sparsification area: 0 if the spread orders images as their errors do, 1 if by chance; drawn: the mean error left as the images of the largest spread are taken away (full line) and as the largest errors are (dotted). Coverage: what split-conformal intervals scaled by the spread hold on the other half of the references. Different or similar, better or worse: area under the curve on pairs of images that opinions tell apart (Krasula). RMSE* and outliers: errors beyond the interval of the mean opinion, after the logistic fit (ITU-T P.1401)."),
    ...sets.map((set, place) => {
      const methods = shownMethods().filter((method) => set.reliability[method]);
      const some = columns.filter(([key]) => methods.some((method) => known(set.reliability[method][key])));
      const curves = methods.filter((method) => set.reliability[method].sparsification);
      return element("details", { "data-name": `reliability ${set.benchmark}`, open: place === 0 }, element("summary", {}, set.benchmark),
        grid(head("method", ...some.map(([, , name]) => name)), methods.map((method) =>
          element("tr", {}, named(method), ...some.map(([key, digits]) => element("td", {}, fixed(set.reliability[method][key], digits)))))),
        curves.length ? element("div", { class: "smalls" }, ...curves.map((method) => element("figure", {}, sparsification(set.reliability[method].sparsification, method), element("figcaption", {}, swatch(method), method)))) : "",
        unknownOpinions(set) ?? "", parts(set) ?? "");
    }),
  ];
}

function unknownOpinions(set) {
  const reasons = new Set(Object.values(set.reliability).map((found) => found.no_opinions).filter(Boolean));
  return reasons.size ? element("p", { class: "soft" }, `Not held against how sure opinions are: ${[...reasons].join("; ")}.`) : null;
}

function sparsification({ share, by_spread, by_error }, method) {
  const [width, height] = [150, 70];
  const top = Math.max(...by_spread, ...by_error, 1e-9);
  const path = (values, dash) => shape("path", { d: values.map((value, i) => `${i ? "L" : "M"}${(share[i] * width).toFixed(1)} ${(height - (value / top) * height).toFixed(1)}`).join(""), fill: "none", style: `stroke:${color(method)}`, "stroke-width": 1.6, "stroke-dasharray": dash });
  return shape("svg", { viewBox: `-1 -2 ${width + 2} ${height + 4}`, width, height, role: "img", "aria-label": `${method}: mean error as images are taken away` },
    shape("path", { class: "axis", d: `M0 0V${height}H${width}`, fill: "none" }), path(by_spread, ""), path(by_error, "2 3"));
}

function parts(set) {
  const methods = shownMethods().filter((method) => set.parts[method]?.length);
  if (!methods.length) return null;
  const rows = set.parts[methods[0]];
  return element("details", { "data-name": `parts ${set.benchmark}` }, element("summary", {}, "By distortion and level: SRCC, and the mean absolute error"),
    grid(head("part", "images", ...methods), rows.map(({ by, value, n }) => element("tr", {}, element("td", {}, by === "level" ? `level ${value}` : value), element("td", {}, n),
      ...methods.map((method) => {
        const found = set.parts[method].find((part) => part.by === by && part.value === value);
        return element("td", {}, fixed(found?.srcc), element("small", {}, found ? `error ${fixed(found.mae, 2)}` : ""));
      })))));
}

function drawPerception() {
  const found = DATA.perturbed.filter((entry) => entry.moment === view.moment);
  if (!found.length) return null;
  const methods = shownMethods().filter((method) => found.some((entry) => entry.methods[method]));
  return [
    element("p", { class: "soft" }, "Copies of the images that were perturbed, beside their originals. Above: share of pairs in which the original scores higher; the curve is the fall of the score over the strengths. Of a replacement by another image or grey: the share of answers that stayed the same."),
    ...[...new Set(found.map((entry) => entry.benchmark))].map((benchmark, place) => element("details", { "data-name": `perception ${benchmark}`, open: place === 0 }, element("summary", {}, benchmark),
      grid(head("perturbation", ...methods), found.filter((entry) => entry.benchmark === benchmark).map((entry) => element("tr", {}, element("td", {}, entry.kind.replaceAll("_", " "), element("small", {}, entry.family)),
        ...methods.map((method) => {
          const said = entry.methods[method];
          if (!said) return element("td", { class: "absent" }, "\u2014");
          return entry.family === "replacement" ? element("td", {}, fixed(said.unchanged, 2), element("small", {}, "unchanged"))
            : element("td", { title: `${said.n_pairs} of ${said.n} copies have a readable answer; SRCC of strength and fall ${fixed(said.strength_srcc)}` }, fixed(said.above, 2), spark(said.drop_by_strength, method), element("small", {}, `fall ${fixed(said.drop, 2)}`));
        })))))),
  ];
}

function spark(values, method) {
  const all = values.filter(known);
  if (all.length < 2) return "";
  const [least, most] = [Math.min(0, ...all), Math.max(0, ...all, 0.01)];
  const y = (value) => 22 - (20 * (value - least)) / (most - least);
  return shape("svg", { class: "spark", viewBox: "0 0 64 24", width: 64, height: 24, role: "img", "aria-label": `fall by strength: ${values.map((value) => fixed(value, 2)).join(", ")}` },
    shape("line", { class: "axis", x1: 0, x2: 64, y1: y(0), y2: y(0) }),
    shape("path", { d: values.map((value, i) => `${i ? "L" : "M"}${(i * 60) / (values.length - 1) + 2} ${y(value ?? 0).toFixed(1)}`).join(""), fill: "none", style: `stroke:${color(method)}`, "stroke-width": 1.6 }));
}

function drawWorst() {
  const sets = DATA.images.filter((set) => set.worst.length);
  if (!sets.length) return null;
  return [
    element("p", { class: "soft" }, "Images on which some method is furthest from people."),
    ...sets.map((set, place) => element("details", { "data-name": `worst ${set.benchmark}`, open: place === 0 }, element("summary", {}, set.benchmark), element("div", { class: "cards" }, ...set.worst.slice(0, 12).map((id) => {
      const image = set.images.find((entry) => entry.id === id);
      const said = shownMethods().filter((method) => known(image.scores[method]?.score)).slice(0, 4).map((method) => element("div", { class: "soft said" }, swatch(method), element("span", {}, ...broken(method)), fixed(image.scores[method].score, 2)));
      return element("button", { type: "button", onclick: () => change({ image: `${set.benchmark}\n${id}` }) },
        set.pictures[id] ? element("img", { src: set.pictures[id], alt: "" }) : element("div", { class: "nopicture" }, "no picture"),
        element("b", {}, `opinion ${fixed(image.mos, 2)}`), ...said);
    })))),
  ];
}

// Keys in which the chosen methods differ; what differs in a set's own description is folded away.
function drawSettings() {
  const methods = shownMethods().filter((method) => Object.values(DATA.changes).some((values) => method in values));
  const keys = Object.keys(DATA.changes).filter((key) => new Set(methods.map((method) => JSON.stringify(DATA.changes[key][method]))).size > 1);
  const unlike = Object.entries(DATA.unlike_seeds).filter(([method]) => methods.includes(method));
  if (!keys.length && !unlike.length) return null;
  const rows = (chosen) => grid(head("key", ...methods), chosen.map((key) => element("tr", {}, element("td", {}, ...key.split(/(?<=\.)/).flatMap((part) => [part, element("wbr")])),
    ...methods.map((method) => setting(DATA.changes[key][method])))));
  const folded = keys.filter((key) => key.startsWith("dataset."));
  const open = keys.filter((key) => !key.startsWith("dataset."));
  return [
    element("p", { class: "soft" }, "Keys in which the chosen methods differ. The search field filters by them: perception.form=none."),
    ...unlike.map(([method, found]) => element("p", { class: "gone" }, `Runs of ${method} differ in more than their seed: ${found.slice(0, 8).join(", ")}${found.length > 8 ? ", \u2026" : ""}.`)),
    open.length ? rows(open) : null,
    folded.length ? element("details", { "data-name": "settings of sets" }, element("summary", {}, `dataset: ${folded.length} key${folded.length > 1 ? "s" : ""}`), rows(folded)) : null,
  ];
}

function setting(value) {
  const text = known(value) ? String(value) : "\u2014";
  return element("td", { title: text.length > 40 ? text : null }, text.length > 40 ? `${text.slice(0, 39)}\u2026` : text);
}

function drawCode() {
  if (!DATA.codes.length) return null;
  const [first, ...others] = DATA.codes;
  if (!others.length) return [element("p", {}, `All runs were computed by the same code, ${first.code}.`)];
  const few = (runs) => `${runs.slice(0, 3).join(", ")}${runs.length > 3 ? ` and ${runs.length - 3} more` : ""}`;
  return [
    element("p", { class: "gone" }, `The runs were computed by ${DATA.codes.length} different codes: what differs between them may be the code.`),
    element("p", {}, `${first.code}: ${few(first.runs)}`),
    ...others.map(({ code, runs, diff, gone }) => (gone.length
      ? element("p", {}, `${code}: ${few(runs)}. `, element("span", { class: "soft" }, `No whole copy of ${gone.join(" and ")} is left, so what differs is not known.`))
      : element("details", { "data-name": `code ${code}` }, element("summary", {}, `${code}: ${few(runs)}`), element("pre", { class: "diff" },
        ...diff.split("\n").map((line) => element("span", { class: /^\+/.test(line) ? "up" : /^-/.test(line) ? "down" : null }, `${line}\n`)))))),
  ];
}

function drawLogs() {
  const found = DATA.logs.filter(({ method }) => shownMethods().includes(method));
  if (!found.length) return null;
  return found.flatMap(({ run, state, cause, step, total_steps, log }) => [
    element("h3", {}, `${run}: `, element("span", { class: state === "running" ? "up" : "down" }, state), state === "running" ? element("span", { class: "soft" }, ` step ${step} of ${total_steps ?? "?"}`) : ""),
    cause ? element("p", {}, cause) : null,
    log ? element("details", { "data-name": `log ${run}` }, element("summary", {}, "end of its log"), element("pre", {}, log)) : null]);
}

const hours = (seconds) => Object.values(seconds).reduce((sum, value) => sum + (value ?? 0), 0) / 3600;

function drawCost() {
  const runs = DATA.runs.filter((run) => shownMethods().includes(run.method) && hours(run.seconds) > 0);
  if (!runs.length) return null;
  const phases = [...new Set(runs.flatMap((run) => Object.keys(run.seconds)))];
  const methods = shownMethods().filter((method) => runs.some((run) => run.method === method));
  const figures = table()?.figures ?? {};
  const perImage = ["tokens_per_image", "distinct_pairs", "repeated_triples", "time/seconds_per_image"].filter((name) => methods.some((method) => known(figures[method]?.[name])));
  const mean = (own, phase) => { const values = own.map((run) => run.seconds[phase]).filter(known); return values.length ? values.reduce((sum, value) => sum + value, 0) / values.length / 60 : null; };
  return [
    element("p", { class: "soft" }, `Minutes of a run by phase, the mean over seeds; hours of all seeds together.${perImage.length ? ` Tokens and seconds per image, and of the reasoning the share of pairs of words that are different and of triples that an answer repeats: means over the benchmarks, read-out ${view.readout}.` : ""}`),
    grid(head("method", "runs", "hours", ...phases.map((phase) => phase.replaceAll("_", " ")), ...perImage.map((name) => NAMES[name])), methods.map((method) => {
      const own = runs.filter((run) => run.method === method);
      return element("tr", {}, named(method), element("td", {}, own.length), element("td", {}, own.reduce((sum, run) => sum + hours(run.seconds), 0).toFixed(2)),
        ...phases.map((phase) => element("td", {}, fixed(mean(own, phase), 1))), ...perImage.map((name) => element("td", {}, fixed(figures[method]?.[name], 2))));
    })),
  ];
}

const checkpointFigures = (found) => (found ? `${Object.entries(found).filter(([name]) => name !== "step").map(([name, value]) => `${name} ${fixed(value)}`).join(", ")} (step ${found.step})` : "\u2014");

function drawProvenance() {
  const total = DATA.runs.reduce((sum, run) => sum + hours(run.seconds), 0);
  return [
    element("p", { class: "soft" }, `${DATA.runs.length} runs, ${total.toFixed(2)} hours in all.`),
    element("details", { "data-name": "provenance" }, element("summary", {}, "Every run"),
      grid(head("run", "state", "steps", "last on validation", "best on validation", "hours", "code", "torch", "machine", "directory"),
        DATA.runs.filter((run) => shownMethods().includes(run.method)).map((run) => element("tr", {},
          element("td", {}, swatch(run.method), `${run.method}/seed${run.seed}`), element("td", { class: run.state === "failed" ? "down" : null, title: run.cause || null }, run.state, collapseBadge([run])), element("td", {}, known(run.total_steps) ? `${run.step}/${run.total_steps}` : String(run.step)),
          ...["last", "best"].map((name) => element("td", {}, checkpointFigures(run.validation[name]))),
          element("td", {}, hours(run.seconds).toFixed(2)), element("td", {}, (run.code || "\u2014") + (run.commit ? `, commit ${run.commit.slice(0, 12)}` : "")), element("td", {}, run.packages.torch ?? "\u2014"),
          element("td", {}, [...run.accelerators, run.hardware.processor ?? run.hardware.cpu ?? ""].filter(Boolean).join(", ") || "\u2014"), element("td", { class: "text" }, run.directory))))),
  ];
}

// ---- Start ----

function start() {
  const states = {};
  for (const run of DATA.runs) states[run.state] = (states[run.state] ?? 0) + 1;
  const miniature = DATA.runs.some((run) => run.miniature) ? " Measured on MINIATURE SYNTHETIC sets, which say nothing about real images." : "";
  byId("summary").textContent = `${counted(DATA.methods.length, "method")}, ${counted(DATA.runs.length, "run")}: ${Object.entries(states).map(([state, count]) => `${count} ${state}`).join(", ")}.${miniature}`;
  for (const key of ["metric", "moment", "readout"]) byId(key).addEventListener("change", (event) => { view[key] = event.target.value; repairView(key); change({}); });
  let waiting = 0;
  byId("search").addEventListener("input", (event) => {
    clearTimeout(waiting);
    waiting = setTimeout(() => change({ search: event.target.value }), 120);
  });
  byId("link").addEventListener("click", (event) => copy(event.currentTarget, location.href));
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
