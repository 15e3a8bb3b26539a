// The strip that says how far a new scan is, and what starts it, ends it and goes on in its run.

import { ask } from "./api.js";
import { byId, count, make, toast } from "./dom.js";

const OFTEN = 1000;
let watching = 0;
let before = "idle";
// an offer that was put off; the dialog of the progress still has it
let later = false;

/** Shows what the server says of a new scan, and asks again while one runs. */
export function showRescan(found) {
  clearTimeout(watching);
  const runs = found.state === "running" || found.state === "stopping";
  if (runs) {
    later = false;
    watching = setTimeout(() => ask("/rescan", { do: "status" }).then(showRescan, () => {}), OFTEN);
  }
  const place = byId("rescan");
  place.hidden = found.state === "idle" || (found.state === "done" && later);
  place.classList.toggle("failed", found.state === "failed");
  if (found.state === "running" && before === "running") showLine(place, found);  // its button keeps the focus
  else if (!place.hidden) place.replaceChildren(...inside[found.state](found));
  if (before === "running" && found.state === "done") toast("The new scan is done");
  before = found.state;
}

function showLine(place, found) {
  place.querySelector(".text").textContent = `Scanning again: ${found.line}`;
  place.querySelector(".meter").classList.toggle("unknown", found.share === null);
  place.querySelector(".meter > span").style.width = `${100 * (found.share ?? 0)}%`;
}

const button = (text, onclick, kind = null) => make("button", { type: "button", class: kind, onclick }, text);

const inside = {
  running: (found) => [
    make("span", { class: "said" }, make("span", { class: "text" }, `Scanning again: ${found.line}`), make("span", { class: "meter unknown", "aria-hidden": "true" }, make("span"))),
    button("Cancel", () => act("cancel")),
  ],
  stopping: () => [make("span", { class: "said" }, "The new scan is being stopped.")],
  failed: (found) => [make("span", { class: "said" }, `The new scan failed: ${found.error}`), button("Close", () => act("cancel"))],
  done: (found) => [
    make("span", { class: "said" }, `The new scan is done: ${count(found.flagged)} flagged labels.`),
    button(`Go on in ${found.run}`, goOn, "primary"),
    button("Later", () => { later = true; showRescan(found); }),
  ],
};

async function act(what) {
  const found = await ask("/rescan", { do: what }).catch((error) => { toast(error.message); });
  if (found) showRescan(found);
}

async function goOn() {
  toast("Opening the new run …");
  // all pages of the old run are out of date then, this one too
  await ask("/rescan", { do: "go-on" }).then(() => location.reload(), (error) => toast(error.message));
}

/** Returns what offers a new scan, to be put into a page; `close` is called once it began. */
export function rescanOffer(close = () => {}) {
  const place = make("section", { class: "again" }, make("h3", {}, "Scan again"));
  ask("/rescan", { do: "look" }).then((found) => place.append(...offered(found, close)), (error) => place.append(make("p", {}, error.message)));
  return place;
}

function offered(found, close) {
  if (found.state === "running" || found.state === "stopping") return [make("p", { class: "muted" }, "A new scan runs; the line at the top says how far it is.")];
  if (found.state === "done") return [make("p", {}, `A new scan is done: ${count(found.flagged)} flagged labels.`), button(`Go on in ${found.run}`, goOn, "primary")];
  const begin = async () => {
    const begun = await ask("/rescan", { do: "start" }).catch((error) => { toast(error.message); });
    if (!begun) return;
    showRescan(begun);
    close();
  };
  const start = button("Scan again", begin);
  start.disabled = Boolean(found.why_not) || !found.new;
  const images = found.new === 1 ? "1 image has an answer" : `${count(found.new)} images have answers`;
  const said = found.why_not ? `Not possible here: ${found.why_not}.`
    : found.new ? `${images} that the scan did not know. A new scan takes them as known and writes a folder of its own; this run stays as it is. The audit begins anew.`
      : "No answer yet that the scan did not know.";
  return [make("p", { class: "muted" }, said), start];
}
