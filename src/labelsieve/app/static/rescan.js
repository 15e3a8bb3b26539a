// The strip that shows the progress of a new scan, and what starts it, ends it and goes on in its run.

import { ask } from "./api.js";
import { byId, count, make, toast } from "./dom.js";

const OFTEN = 1000;
let watching = 0;
let before = "idle";
// an offer that was put off; the dialog of the progress still has it
let later = false;

/** Shows what the server says of a new scan, and asks again while one runs. */
export function showRescan(status) {
  clearTimeout(watching);
  const runs = status.state === "running" || status.state === "stopping";
  if (runs) {
    later = false;
    watching = setTimeout(() => ask("/rescan", { do: "status" }).then(showRescan, () => {}), OFTEN);
  }
  const place = byId("rescan");
  place.hidden = status.state === "idle" || (status.state === "done" && later);
  place.classList.toggle("failed", status.state === "failed");
  if (status.state === "running" && before === "running") showLine(place, status);  // its button keeps the focus
  else if (!place.hidden) place.replaceChildren(...inside[status.state](status));
  if (before === "running" && status.state === "done") toast("The new scan is done");
  before = status.state;
}

function showLine(place, status) {
  place.querySelector(".text").textContent = `Scanning again: ${status.line}`;
  place.querySelector(".meter").classList.toggle("unknown", status.share === null);
  place.querySelector(".meter > span").style.width = `${100 * (status.share ?? 0)}%`;
}

const button = (text, onclick, kind = null) => make("button", { type: "button", class: kind, onclick }, text);

const inside = {
  running: (status) => [
    make("span", { class: "said" }, make("span", { class: "text" }, `Scanning again: ${status.line}`), make("span", { class: "meter unknown", "aria-hidden": "true" }, make("span"))),
    button("Cancel", () => act("cancel")),
  ],
  stopping: () => [make("span", { class: "said" }, "The new scan is being stopped.")],
  failed: (status) => [make("span", { class: "said" }, `The new scan failed: ${status.error}`), button("Close", () => act("cancel"))],
  done: (status) => [
    make("span", { class: "said" }, `The new scan is done: ${count(status.flagged)} flagged labels.`),
    button(`Go on in ${status.run}`, goOn, "primary"),
    button("Later", () => { later = true; showRescan(status); }),
  ],
};

async function act(what) {
  const status = await ask("/rescan", { do: what }).catch((error) => { toast(error.message); });
  if (status) showRescan(status);
}

async function goOn() {
  toast("Opening the new run …");
  // all pages of the old run are out of date then, this one too
  await ask("/rescan", { do: "go-on" }).then(() => location.reload(), (error) => toast(error.message));
}

/** Returns what offers a new scan, to be put into a page; `close` is called once it began. */
export function rescanOffer(close = () => {}) {
  const place = make("section", { class: "again" }, make("h3", {}, "Scan again"));
  ask("/rescan", { do: "look" }).then((status) => place.append(...offered(status, close)), (error) => place.append(make("p", {}, error.message)));
  return place;
}

function offered(status, close) {
  if (status.state === "running" || status.state === "stopping") return [make("p", { class: "muted" }, "A new scan runs; the line at the top shows its progress.")];
  if (status.state === "done") return [make("p", {}, `A new scan is done: ${count(status.flagged)} flagged labels.`), button(`Go on in ${status.run}`, goOn, "primary")];
  const begin = async () => {
    const begun = await ask("/rescan", { do: "start" }).catch((error) => { toast(error.message); });
    if (!begun) return;
    showRescan(begun);
    close();
  };
  const start = button("Scan again", begin);
  start.disabled = Boolean(status.why_not) || !status.new;
  const images = status.new === 1 ? "1 image has an answer" : `${count(status.new)} images have answers`;
  const message = status.why_not ? `Not possible here: ${status.why_not}.`
    : status.new ? `${images} that the scan did not know. A new scan takes what is answered as known and writes a folder of its own; this run stays as it is. The audit starts over.`
      : "No answer yet that the scan did not know.";
  return [make("p", { class: "muted" }, message), start];
}
