// The dialog to choose any class: search as you type, arrows and Enter.

import { byId, make } from "./dom.js";
import { nameOf, search, total } from "./names.js";

const dialog = byId("picker");
const text = byId("picker-text");
const list = byId("picker-list");
let chosen = null;
let extra = null;

/** Asks for a class; gives its index, null if it was closed, or -1 for an entry in addition such as "All". */
export function pick({ recent = [], addition = null } = {}) {
  extra = addition;
  text.value = "";
  show(recent);
  dialog.returnValue = "";
  chosen = null;
  dialog.showModal();
  text.focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(chosen), { once: true });
  });
}

function show(recent = []) {
  const query = text.value.trim();
  const { matches, isAll } = search(query);
  const rows = query ? matches : [...new Set([...recent, ...matches])];
  const entries = rows.map((index) => entry(index, nameOf(index)));
  if (extra && !query) entries.unshift(entry(-1, extra));
  list.replaceChildren(...entries);
  byId("picker-hint").textContent = rows.length === 0 ? "No class has this in its name."
    : isAll ? "" : `${total().toLocaleString("en-US")} classes; type more to narrow them down`;
  mark(list.firstElementChild);
}

function entry(index, name) {
  return make("li", {
    role: "option",
    id: `pick-${index}`,
    "data-index": index,
    onclick: () => close(index),
  }, name === "" ? "(empty name)" : name);
}

function mark(item) {
  list.querySelector("[aria-selected=true]")?.setAttribute("aria-selected", "false");
  item?.setAttribute("aria-selected", "true");
  item?.scrollIntoView({ block: "nearest" });
  text.setAttribute("aria-activedescendant", item ? item.id : "");
}

function close(index) {
  chosen = index;
  dialog.close();
}

text.addEventListener("input", () => show());
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
dialog.addEventListener("keydown", (event) => {
  const current = list.querySelector("[aria-selected=true]");
  if (event.key === "ArrowDown") mark(current?.nextElementSibling ?? current);
  else if (event.key === "ArrowUp") mark(current?.previousElementSibling ?? current);
  else if (event.key === "Escape") dialog.close();  // a search field would keep the key to itself
  else if (event.key === "Enter" && !event.isComposing) { if (current) close(Number(current.dataset.index)); }
  else return;
  event.preventDefault();
  event.stopPropagation();  // the dialog may be closed by now, and the key must not answer the card
});
