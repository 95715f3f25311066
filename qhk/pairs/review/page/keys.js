// One key per action; the help dialog lists the same table.

export const KEYS = {
  Answer: [
    { keys: ["s"], text: "S", action: "same", help: "they look the same" },
    { keys: ["d"], text: "D", action: "different", help: "they look different" },
    { keys: ["f"], text: "F", action: "unsure", help: "cannot tell" },
    { keys: ["x"], text: "X", action: "unusable", help: "not fit for training" },
    { keys: ["g"], text: "G", action: "skip", help: "put off" },
    { keys: ["Backspace"], text: "Bksp", action: "undo", help: "take back the last answer" },
  ],
  Move: [
    { keys: ["ArrowRight"], text: "\u2192", action: "next", help: "next pair, without an answer" },
    { keys: ["ArrowLeft"], text: "\u2190", action: "previous", help: "previous pair" },
    { keys: ["j"], text: "J", action: "jump", help: "go to a pair" },
    { keys: ["q"], text: "Q", action: "queue", help: "choose which pairs to show" },
    { keys: ["i"], text: "I", action: "agreement", help: "agreement of reviewers" },
    { keys: ["?"], text: "?", action: "help", help: "this list" },
  ],
  Look: [
    { keys: ["1"], text: "1", action: "side", help: "side by side" },
    { keys: ["2"], text: "2", action: "flicker", help: "one in place of the other" },
    { keys: ["3"], text: "3", action: "difference", help: "difference, amplified" },
    { keys: [" "], text: "Space", action: "flip", help: "swap the pictures in place" },
    { keys: ["a"], text: "A", action: "auto", help: "swap by itself, on or off" },
    { keys: ["["], text: "[", action: "less", help: "swap faster; difference fainter" },
    { keys: ["]"], text: "]", action: "more", help: "swap slower; difference stronger" },
    { keys: ["0"], text: "0", action: "fit", help: "whole picture, at most 1:1" },
    { keys: ["9"], text: "9", action: "fill", help: "as large as the window takes" },
    { keys: ["z"], text: "Z", action: "native", help: "1:1 pixels, and back" },
    { keys: ["+", "="], text: "+", action: "in", help: "zoom in, or wheel" },
    { keys: ["-", "_"], text: "\u2212", action: "out", help: "zoom out" },
    { keys: [], text: "Shift \u2190\u2191\u2192\u2193", action: null, help: "pan, or drag" },
  ],
};

const PANS = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
const TYPED = "input[type=text], select, dialog[open] *";
// A held key must not rush through pairs; only these may repeat.
const REPEATING = new Set(["in", "out", "less", "more"]);

// `actions` maps an action to a function; `pan(dx, dy)` moves by whole steps.
export function listen(actions, pan) {
  const table = new Map(Object.values(KEYS).flat().flatMap(({ keys, action }) => keys.map((key) => [key, action])));
  document.addEventListener("keydown", (event) => {
    if (event.target.closest(TYPED) || document.querySelector("dialog[open]")) return;
    if (event.shiftKey && PANS[event.key]) {
      event.preventDefault();
      pan(...PANS[event.key]);
      return;
    }
    const undo = (event.ctrlKey || event.metaKey) && event.key === "z";
    if (!undo && (event.ctrlKey || event.metaKey || event.altKey)) return;
    const action = undo ? "undo" : table.get(event.key.length === 1 ? event.key.toLowerCase() : event.key);
    if (!action) return;
    const onControl = event.target.closest("button, input");
    if (onControl && (event.key === " " || (onControl.matches("input") && event.key.startsWith("Arrow")))) return;
    event.preventDefault();
    if (event.repeat && !REPEATING.has(action)) return;
    actions[action]();
  });
}
