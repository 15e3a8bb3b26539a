// The bar at the top and the dialog with precision by class and by p_clean.

import { ask } from "./api.js";
import { byId, count, duration, make, percent } from "./dom.js";
import { nameOf } from "./names.js";
import { rescanOffer } from "./rescan.js";

/** Shows done, left, rate and time left of the queue. */
export function showBar(progress) {
  const share = progress.done === null ? 0 : progress.size ? progress.done / progress.size : 1;
  byId("meter").firstElementChild.style.width = `${100 * share}%`;
  byId("meter").setAttribute("aria-valuenow", String(Math.round(100 * share)));
  const parts = progress.done === null ? [`${count(progress.left)} in this state`] : [`${count(progress.done)} done`, progress.skipped_in_queue ? `${count(progress.skipped_in_queue)} skipped` : "", `${count(progress.left)} left`].filter(Boolean);
  if (progress.seconds_each !== null) {
    if (progress.left) parts.push(`${duration(progress.seconds_left)} to go`);
    parts.push(`${progress.seconds_each.toFixed(progress.seconds_each < 10 ? 1 : 0)} s each`);  // last: a phone may cut it
  }
  byId("progress-text").textContent = parts.join(" · ");
}

/** Opens the dialog. */
export async function openStats(start) {
  const dialog = byId("stats");
  const precision = await ask("/precision", {});
  const { flags } = precision;
  const close = make("button", { type: "button", class: "quiet", onclick: () => dialog.close() }, "Close");
  const proved = make("section", { class: "proved" }, make("h3", {}, "What the audit proves"), make("p", { class: "muted" }, "Counting …"));
  ask("/guarantees", {}).then((reply) => showProved(proved, reply.sentences), (error) => showProved(proved, [{ text: error.message, assumption: "" }]));
  dialog.replaceChildren(
    make("p", { class: "head" }, make("strong", {}, "Progress"), make("span"), close),
    flags.answered
      ? make("p", { class: "lead" }, `${count(flags.wrong)} of ${count(flags.answered)} answered ${flags.answered === 1 ? "flag" : "flags"} ${flags.wrong === 1 ? "was" : "were"} wrong: ${percent(flags.wrong / flags.answered)}.`)
      : make("p", { class: "lead" }, "No flagged label has been answered yet."),
    make("p", { class: "muted" }, "So far, in the order of the queue, which says nothing of the other labels."),
    proved,
    rescanOffer(() => dialog.close()),
    make("div", { class: "tables" },
      table("By p_clean", "p_clean", precision.by_p_clean.filter((row) => row.answered), (row) => `${row.low.toFixed(1)} to ${row.high.toFixed(1)}`),
      table("Flags by given class", "Class", precision.by_class, (row) => nameOf(row.label)),
      people(precision.reviewers)),
    make("p", { class: "muted" }, `${count(start.images)} images, ${count(start.flagged)} flagged, ${count(start.unreadable)} unreadable`),
  );
  dialog.showModal();
}

function showProved(place, sentences) {
  const lines = sentences.map((each) => make("li", {}, each.text, each.assumption && make("small", {}, `If ${each.assumption}.`)));
  place.replaceChildren(place.firstElementChild, make("ul", {}, ...lines));
}

function table(title, first, rows, name) {
  if (!rows.length) return make("section", {}, make("h3", {}, title), make("p", { class: "muted" }, "No answers yet"));
  const kind = first === "p_clean" ? "range" : null;  // names of classes may be long, and break
  const body = rows.map((row) => make("tr", {}, make("th", { scope: "row", class: kind }, name(row)),
    make("td", {}, count(row.answered)), make("td", {}, count(row.wrong)), make("td", {}, bar(row.wrong / row.answered))));
  const head = make("tr", {}, ...[first, "Answered", "Wrong", "Share"].map((each) => make("th", { scope: "col", class: kind }, each)));
  return make("section", {}, make("h3", {}, title), make("table", {}, make("thead", {}, head), make("tbody", {}, ...body)));
}

function bar(share) {
  const inside = make("span");
  inside.style.width = `${100 * share}%`;
  return make("span", { class: "share" }, make("span", { class: "track", "aria-hidden": "true" }, inside), percent(share));
}

function people(reviewers) {
  const rows = reviewers.answers.map((each) => make("tr", {}, make("th", { scope: "row" }, each.name), make("td", {}, count(each.answers))));
  const parts = [make("h3", {}, "Reviewers"), make("table", {}, make("tbody", {}, ...rows))];
  if (reviewers.shared) {
    const kappa = reviewers.kappa === null ? "" : `, kappa ${reviewers.kappa.toFixed(2)}`;
    const agree = reviewers.agree === null ? "" : `: they agree on ${percent(reviewers.agree)}${kappa}`;
    parts.push(make("p", {}, `${reviewers.shared === 1 ? "1 image has" : `${count(reviewers.shared)} images have`} answers of more than one reviewer${agree}`));
  }
  return make("section", {}, ...parts);
}
