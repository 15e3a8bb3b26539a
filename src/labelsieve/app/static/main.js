// The page: which card is shown, and what keys and buttons do.

import { ask, releaseOnClose } from "./api.js";
import { Deck } from "./deck.js";
import { byId, count, make, randomName, toast } from "./dom.js";
import { Filters } from "./filters.js";
import { load, nameOf } from "./names.js";
import { pick } from "./picker.js";
import { rescanOffer, showRescan } from "./rescan.js";
import { showCard, showOriginal, showTop } from "./show.js";
import { openStats, showBar } from "./stats.js";

const start = JSON.parse(byId("start").textContent);
// Milliseconds: a key in the moment in which an answer is saved counts for the next card; after it the disk is slow, and
// that card was not seen yet.
const QUICK = 250;
const RETRY = 2000;
const ALIVE = 20000;
const LOOK_AGAIN = 5000;
// After so long without a key or touch, the cards of this page go to others.
const AWAY = 300000;
const RECENT = 12;
const KEYS = {
  Enter: "accept", " ": "accept", g: "keep", n: "none", m: "several", d: "drop", u: "unsure", s: "skip", z: "undo", t: "note", "/": "search",
  o: "original", p: "stats", f: "filters", "?": "help",
};

const state = {
  card: null, shownAt: 0, note: "", chosen: null, recent: [], onDigits: [],
  saving: null, waiting: null, looking: 0, activeAt: performance.now(), reviewer: start.reviewer,
};
const filters = new Filters(start, () => restart());
const deck = new Deck(() => ({ ...filters.spec(), reviewer: state.reviewer }));

document.body.classList.toggle("boxes", start.has_boxes);

// cards

async function next() {
  const { round } = deck;
  let card = null;
  try {
    card = await deck.next();
  } catch (error) {
    if (round === deck.round) problem(error.message, next);
    return;
  }
  if (round !== deck.round) return;  // another queue was chosen in between, which shows its own cards
  problem("");
  if (card) show(card);
  else await end();
  refresh();
}

function show(card) {
  state.card = card;
  state.note = card.note ?? "";
  state.chosen = null;
  showCard(card, state, act);
  showNote();
  state.shownAt = performance.now();
}

async function restart() {
  clearTimeout(state.looking);
  deck.restart();
  state.card = null;
  await next();
  document.activeElement?.blur();
}

async function end() {
  state.card = null;
  byId("main").hidden = true;
  const place = byId("end");
  const { round } = deck;
  const progress = await ask("/alive", { ...filters.spec(), reviewer: state.reviewer }).catch(() => null);
  if (round !== deck.round) return;
  const button = (text, changes) => make("button", { type: "button", onclick: () => filters.set(changes) }, text);
  const offers = [];
  if (progress?.left) offers.push(make("p", {}, `${count(progress.left)} on other screens now: they come here once they are given back.`));
  const now = filters.spec();
  if (now.filters.which === "flagged" && now.queue !== "audit" && !(now.queue in start.findings)) offers.push(button("Go on with labels that were not flagged", { which: "unflagged", state: "open" }));
  for (const [name, text] of [["skipped", "Skipped"], ["unsure", "Unsure"], ["disputed", "Disputed"]]) {
    if (progress?.[name] && now.filters.state !== name) offers.push(button(`${text} (${count(progress[name])})`, { which: "all", state: name }));
  }
  if (progress?.answered_in_queue && now.filters.state !== "answered") offers.push(button(`Answered (${count(progress.answered_in_queue)})`, { which: "all", state: "answered" }));
  offers.push(make("button", { type: "button", class: "quiet", onclick: () => restart() }, "Look again"));
  const disputed = progress?.answered_disputed ? ` (${count(progress.answered_disputed)} of them disputed)` : "";
  const isOfFindings = now.queue in start.findings && Boolean(progress?.answered_in_queue);
  place.replaceChildren(...[
    make("h2", {}, progress?.left ? "Others have the rest of this queue." : progress?.skipped_in_queue ? "Only images that you skipped are left." : progress?.size ? "This queue is done." : "No image is in this queue."),
    make("p", { class: "muted" }, progress ? `${count(progress.answered)} of ${count(progress.images)} images answered${disputed}, ${count(progress.flagged_answered)} of ${count(progress.flagged)} flagged ones.` : ""),
    isOfFindings ? make("p", { class: "muted" }, "Answers of other queues count here, too. Answered shows these images again, for example to leave out a copy.") : null,
    make("div", { class: "offers" }, ...offers),
    progress?.answered ? rescanOffer() : null,
  ].filter(Boolean));
  place.hidden = false;
  place.focus();
  clearTimeout(state.looking);
  if (progress?.left) state.looking = setTimeout(() => { if (!state.card && !document.querySelector("dialog[open]")) restart(); }, LOOK_AGAIN);
}

// answers

function act(name, value) {
  if (state.saving !== null) {
    if (performance.now() - state.saving < QUICK && state.waiting === null && name !== "regroup") state.waiting = [name, value];
    return;
  }
  if (!document.activeElement?.matches("select, input")) document.activeElement?.blur();
  if (name === "undo") undo();
  else if (name === "stats") openStats(start).catch((error) => toast(error.message));
  else if (name === "filters") filters.toggle();
  else if (name === "help") byId("help").showModal();
  else if (state.card) doOnCard[name]?.(value);
}

const doOnCard = {
  accept() {
    const { card } = state;
    if (state.chosen !== null) {
      if (state.chosen.size < 2) toast("Choose two classes or more, or press m again for one.");
      else answer("several", [...state.chosen]);
    } else if (card.finding?.drop && !card.finding.is_conflict) toast("d leaves it out, g keeps the given label.");
    else if (card.mode === "audit") toast("An audit has no suggestion: 1 to 3, g to keep the given label, or / for another class.");
    else if (card.suggested === null) toast("There is no suggestion for this image.");
    else answer("label", [card.suggested]);
  },
  label(label) {
    if (state.chosen === null) {
      answer("label", [label]);
      return;
    }
    if (!state.chosen.delete(label)) state.chosen.add(label);
    remember(label);
    showTop(state.card, state, act);
  },
  keep() { doOnCard.label(state.card.given); },
  none() { alone("none"); },
  drop() { if (state.card.finding?.drop) alone(state.card.finding.drop); },
  unsure() { alone("unsure"); },
  skip() {
    if (state.card.mode === "audit") toast("An audit image cannot be skipped; take u for unsure.");
    else alone("skip");
  },
  several() {
    state.chosen = state.chosen === null ? new Set() : null;
    showTop(state.card, state, act);
  },
  async search() {
    const label = await pick({ recent: state.recent });
    if (label !== null) act("label", label);
  },
  note: openNote,
  original() {
    const { card } = state;
    if (card.members) { toast("Leave the groups to see an image at full size."); return; }
    if (card.error) { toast("This image cannot be read."); return; }
    const labels = [...new Set([card.given, ...(card.mode === "audit" ? card.top.map((each) => each.label) : [card.suggested])])];
    showOriginal(card, ask("/near", { row: card.row, labels: labels.filter((each) => each !== null) }).then((reply) => reply.near));
  },
  regroup() { showCard(state.card, state, act); },
};

/** Gives an answer that goes with no class; classes that were chosen for an answer with several are not lost by it. */
function alone(kind) {
  if (state.chosen?.size) toast("Enter saves the chosen classes; m goes back to one.");
  else answer(kind);
}

/** Saves an answer; the next card is shown once it is on the disk. */
async function answer(kind, labels = []) {
  const { card } = state;
  const { round } = deck;
  const members = card.members ?? [card];
  const inside = members.filter((each) => !each.isOut);
  if (!inside.length) { toast("All images of the group are taken out."); return; }
  const seconds = (performance.now() - state.shownAt) / 1000 / inside.length;
  const body = {
    reviewer: state.reviewer,
    answers: inside.map((each) => ({
      card: each.card, token: randomName(), kind, labels: labels.map(nameOf), note: state.note, seconds: Math.round(seconds * 1000) / 1000,
    })),
    back: members.filter((each) => each.isOut).map((each) => each.card),
  };
  if (kind === "label") remember(labels[0]);
  await saving(() => ask("/answers", body), () => {
    if (card.finding) deck.again();
    return round === deck.round ? next() : null;
  });
}

async function undo() {
  const body = { reviewer: state.reviewer, token: randomName() };
  await saving(() => ask("/undo", body), async (reply) => {
    if (!reply.cards.length) {
      toast("There is nothing to undo.");
      return;
    }
    deck.putBack(...reply.cards, state.card);
    await next();
    toast("Undone");
  });
}

/** Does something that is saved, until it is: the same request is sent again, and the server keeps it once. */
async function saving(send, then) {
  state.saving ??= performance.now();
  document.body.classList.add("saving");
  try {
    const reply = await send();
    problem("");
    await then(reply);
  } catch (error) {
    [state.saving, state.waiting] = [-QUICK, null];  // no key counts until it is saved
    problem(`Not saved: ${error.message}`, error.again ? () => saving(send, then) : null, error.again);
    if (error.again) return;  // the card stays and nothing else can be answered
  }
  state.saving = null;
  document.body.classList.remove("saving");
  const waiting = state.waiting;
  state.waiting = null;
  if (waiting && state.card) act(...waiting);
}

let retrying = 0;
function problem(text, again = null, soon = false) {
  clearTimeout(retrying);
  byId("problem").hidden = !text;
  byId("problem").firstElementChild.textContent = text;
  byId("retry").hidden = !again;
  byId("retry").onclick = again;
  if (soon) retrying = setTimeout(again, RETRY);
}

function remember(label) {
  state.recent = [label, ...state.recent.filter((each) => each !== label)].slice(0, RECENT);
}

// dialogs

function openNote() {
  const dialog = byId("note-dialog");
  byId("note-text").value = state.note;
  dialog.returnValue = "";
  dialog.showModal();
  dialog.addEventListener("close", () => {
    if (dialog.returnValue === "ok") state.note = byId("note-text").value.trim();
    showNote();
  }, { once: true });
}

byId("note-text").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || event.isComposing) return;
  event.preventDefault();
  byId("note-dialog").close("ok");
});

function showNote() {
  byId("note-shown").hidden = !state.note;
  byId("note-shown").textContent = state.note;
}

function openName() {
  const dialog = byId("name-dialog");
  byId("name-text").value = state.reviewer;
  dialog.returnValue = "";
  dialog.showModal();
  byId("name-text").select();
  dialog.addEventListener("close", () => {
    const name = byId("name-text").value.trim();
    if (dialog.returnValue !== "ok" || !name) return;
    state.reviewer = name;
    sessionStorage.setItem("labelsieve-reviewer", name);
    showName();
    restart();
  }, { once: true });
}

function showName() {
  byId("reviewer-button").textContent = state.reviewer;
}

// the bar

let refreshing = 0;
function refresh() {
  clearTimeout(refreshing);
  refreshing = setTimeout(async () => {
    const progress = await ask("/alive", { ...filters.spec(), reviewer: state.reviewer }).catch(() => null);
    if (!progress) return;
    showBar(progress);
    filters.showLeft(progress.findings);
    showRescan(progress.rescan);
  }, 300);
}

// keys and buttons

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (document.querySelector("dialog[open]")) return;
  if (event.key === "Escape" && filters.close()) {
    event.preventDefault();
    return;
  }
  // a field of a dialog keeps the focus for a moment after the dialog is closed
  if (event.target.matches?.("input, textarea, select") && !event.target.closest("dialog:not([open])")) return;
  const isPress = event.key === "Enter" || event.key === " ";
  if (isPress && event.target.matches?.("button:focus-visible")) return;
  const digit = /^[1-9]$/.test(event.key) ? Number(event.key) : 0;
  const name = digit ? "label" : KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!name) {
    if (event.key === "Escape" && state.chosen !== null) doOnCard.several();
    return;
  }
  event.preventDefault();
  if (event.repeat) return;
  if (!digit) act(name);
  else if (state.saving !== null) act("digit", digit);
  else doOnCard.digit(digit);
});

/** A digit stands for what the card shows on it, which is known only once the card is there. */
doOnCard.digit = (digit) => {
  const label = digit <= 3 ? state.card?.top[digit - 1]?.label : state.onDigits[digit - 4];
  if (label !== undefined) act("label", label);
};

byId("actions").addEventListener("click", (event) => {
  const name = event.target.closest("button")?.dataset.do;
  if (name) act(name);
});
byId("stats-button").addEventListener("click", () => act("stats"));
byId("help-button").addEventListener("click", () => act("help"));
byId("filter-button").addEventListener("click", () => filters.toggle());
byId("reviewer-button").addEventListener("click", openName);
for (const button of document.querySelectorAll("dialog .cancel")) button.addEventListener("click", () => button.closest("dialog").close(""));
// A press that begins in a dialog, as to select a text, does not close it where it ends; what was noted stays noted.
for (const dialog of document.querySelectorAll("dialog")) {
  let isOutside = false;
  dialog.addEventListener("pointerdown", (event) => { isOutside = event.target === dialog; });
  dialog.addEventListener("click", (event) => { if (event.target === dialog && isOutside) dialog.close(dialog.id === "note-dialog" ? "ok" : ""); });
}

// a name in the address counts more than the one that was chosen before in this tab
if (new URLSearchParams(location.search).has("reviewer")) sessionStorage.setItem("labelsieve-reviewer", state.reviewer);
else state.reviewer = sessionStorage.getItem("labelsieve-reviewer") || state.reviewer;
history.replaceState(null, "", "/");
releaseOnClose();
showName();
for (const kind of ["keydown", "pointerdown"]) addEventListener(kind, () => { state.activeAt = performance.now(); }, true);
setInterval(() => { if (performance.now() - state.activeAt < AWAY) refresh(); }, ALIVE);
load().then(() => { filters.ready(); return next(); }).catch((error) => problem(error.message, () => location.reload()));
