// The dialogs: reviewer's name, going to a pair, agreement, keys.

import { KEYS } from "./keys.js";

const byId = (id) => document.getElementById(id);

export function element(name, text, attributes = {}) {
  const made = Object.assign(document.createElement(name), attributes);
  made.textContent = text;
  return made;
}

// Asks until `accept(value)` returns null; a returned line is shown as the problem. Resolves to the value,
// or to null where Escape closed the dialog (which `required` forbids).
function ask(kind, { value = "", required = false, accept }) {
  const [dialog, input, problem] = [`${kind}-dialog`, `${kind}-input`, `${kind}-problem`].map(byId);
  const form = dialog.querySelector("form");
  input.value = value;
  problem.textContent = "";
  return new Promise((resolve) => {
    const done = (answer) => {
      form.onsubmit = dialog.oncancel = null;
      dialog.close();
      resolve(answer);
    };
    form.onsubmit = async (event) => {
      event.preventDefault();
      const answer = input.value.trim();
      const line = await accept(answer);
      if (line === null) done(answer);
      else problem.textContent = line;
    };
    dialog.oncancel = (event) => {
      event.preventDefault();
      if (!required) done(null);
    };
    dialog.showModal();
    input.select();
  });
}

export function askName({ known, value, required, accept }) {
  const names = known.map((name) => {
    const button = element("button", name, { type: "button" });
    button.onclick = () => {
      byId("name-input").value = name;
      byId("name-dialog").querySelector("form").requestSubmit();
    };
    return button;
  });
  byId("known-names").replaceChildren(...names);
  return ask("name", { value, required, accept });
}

export function askPair(accept) {
  return ask("jump", { accept });
}

export function showHelp() {
  const list = (name) => {
    const rows = document.createElement("dl");
    for (const { text, help } of KEYS[name]) {
      const key = document.createElement("dt");
      key.append(element("kbd", text));
      rows.append(key, element("dd", help));
    }
    return [element("h2", name), rows];
  };
  const columns = [["Answer", "Move"], ["Look"]].map((names) => {
    const column = document.createElement("div");
    column.append(...names.flatMap(list));
    return column;
  });
  byId("help-keys").replaceChildren(...columns);
  byId("help-dialog").showModal();
}

const percent = (fraction) => (fraction === null ? "\u2013" : `${(100 * fraction).toFixed(1)} %`);
const number = (value) => (value === null ? "\u2013" : value.toFixed(3));

function table(headings, rows) {
  const made = document.createElement("table");
  const line = (cells, name) => {
    const row = document.createElement("tr");
    row.append(...cells.map((cell) => element(name, String(cell))));
    return row;
  };
  made.append(line(headings, "th"), ...rows.map((cells) => line(cells, "td")));
  return made;
}

export function showAgreement(found) {
  const counts = Object.entries(found.reviewers).map(([name, own]) =>
    [name, ...["same", "different", "unsure", "unusable", "skip"].map((answer) => own[answer] ?? 0)]);
  const between = found.between.map((two) =>
    [`${two.first} \u2013 ${two.second}`, two.n, percent(two.fraction), number(two.kappa)]);
  const parts = [table(["Reviewer", "same", "different", "unsure", "unusable", "skipped"], counts)];
  if (between.length) {
    parts.push(
      table(["Between", "pairs", "agree", "Cohen's \u03ba"], between),
      element("p", `Krippendorff's \u03b1 over ${found.shared} shared pairs: ${number(found.alpha)}. `
        + `${found.disagreements} disagreements. Unsure and skipped pairs are no verdict and do not count.`),
    );
  } else {
    parts.push(element("p", "Agreement shows once two people have given verdicts."));
  }
  byId("agreement").replaceChildren(...parts);
  byId("agreement-dialog").showModal();
}
