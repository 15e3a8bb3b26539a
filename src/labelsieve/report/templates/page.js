"use strict";
const root = document.documentElement;
root.classList.remove("no-js");
const find = (id) => document.getElementById(id);

// Some browsers refuse storage to pages opened as files: the report then works without it.
const storage = (() => {
  try {
    const probe = "labelsieve-probe";
    window.localStorage.setItem(probe, "1");
    window.localStorage.removeItem(probe);
    return window.localStorage;
  } catch {
    return null;
  }
})();

function remember(key, text) {
  try {
    storage?.setItem(key, text);
    return storage !== null;
  } catch {
    return false; // the quota is used up
  }
}

// ---- Theme ----
const saved = storage?.getItem("labelsieve-theme");
if (saved === "light" || saved === "dark") root.dataset.theme = saved;
find("theme").addEventListener("click", () => {
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  remember("labelsieve-theme", root.dataset.theme);
});

// ---- Table of classes: sort by a column ----
const collator = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });
function sortTable(table, column, ascending) {
  const value = (row) => row.children[column].dataset.value ?? row.children[column].textContent;
  const rows = [...table.tBodies[0].rows];
  rows.sort((a, b) => (ascending ? 1 : -1) * collator.compare(value(a), value(b)));
  table.tBodies[0].append(...rows);
}
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const first = head.classList.contains("number") ? "descending" : "ascending";
      const other = first === "descending" ? "ascending" : "descending";
      const order = head.getAttribute("aria-sort") === first ? other : first;
      heads.forEach((each) => each.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      sortTable(table, column, order === "ascending");
    });
  });
}

// ---- Marks: kept by the browser, pressed as buttons, downloaded as CSV ----
function readStored(name, isKnown) {
  try {
    const entries = Object.entries(JSON.parse(storage?.getItem(name) ?? "{}"));
    return new Map(entries.filter(([, value]) => isKnown(value)));
  } catch {
    return new Map();
  }
}

const storeMap = (name, map) => remember(name, JSON.stringify(Object.fromEntries(map)));

function press(buttons, mark) {
  for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.mark === mark));
}

/** Shows how many cards have each kind of mark, and in all; the marks of all cards are passed, undefined where is none. */
function showTally(kinds, marks) {
  const given = marks.filter((mark) => mark !== undefined);
  for (const kind of kinds) find(`count-${kind}`).textContent = given.filter((mark) => mark === kind).length;
  find("marked").textContent = given.length;
  find("download").disabled = given.length === 0;
}

/** A line of a CSV file. A spreadsheet must not take a text for a formula; see spreadsheets.py, which reads it back. */
function csvLine(values) {
  const safe = (value) => (/^'*[=+\-@\t\r\n＝＋－＠]/.test(value)
    && !/^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/.test(value) ? `'${value}` : value);
  const quote = (value) => (/[",\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
  return values.map(safe).map(quote).join(",");
}

/** Makes the button give a file, and warns who leaves marks behind that the browser does not keep. */
function offerDownload(csv) {
  find("download").addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv;charset=utf-8" }));
    link.download = "labelsieve-marks.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  });
  window.addEventListener("beforeunload", (event) => {
    if (!find("volatile").hidden && !find("download").disabled) event.preventDefault();
  });
}

// ---- Moving about: the buttons of one card are in the tab order, the arrows move to the others ----
function moveStop(from, to) {
  for (const [item, stop] of [[from, -1], [to, 0]]) {
    for (const each of [item.firstElementChild, ...item.querySelectorAll("button")]) each.tabIndex = stop;
    item.classList.toggle("current", stop === 0);
  }
}

// ---- Keys ----
const plain = (event) => !(event.ctrlKey || event.metaKey || event.altKey);

/** Keys that belong to what has the focus: a field, a list, or a part that scrolls by arrows. */
const keepsKeys = (target) => target.closest("input, select, textarea, dialog") || target.matches("[role=region], ol.bars, pre");
