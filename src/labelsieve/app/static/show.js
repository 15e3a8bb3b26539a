// How a card looks: image, given and suggested label, and the classes to choose from.

import { original, thumbnail } from "./api.js";
import { byId, count, make, percent, score } from "./dom.js";
import { nameOf } from "./names.js";

const TINY = 64;
// So many annotators of one class are named on a card, and so many copies.
const NAMED = 4;
const NAMED_COPIES = 10;

/** Shows a card. `state.chosen` are the classes of an answer with several, null if it has one. */
export function showCard(card, state, act) {
  byId("main").hidden = false;
  byId("end").hidden = true;
  byId("main").classList.toggle("audit", card.mode === "audit");
  byId("stage").replaceChildren(card.members ? grid(card, act) : withOther(card, single(card, act)));
  byId("about").replaceChildren(...about(card));
  showTop(card, state, act);
  const drop = byId("actions").querySelector("[data-do=drop]");
  drop.hidden = !card.finding?.drop;
  drop.lastElementChild.textContent = card.finding?.drop === "keep-one" ? "Keep one" : "Leave out";
  byId("actions").querySelector("[data-do=skip]").disabled = card.mode === "audit";
}

function single(card, act) {
  if (card.error) return make("p", { class: "missing" }, `This image cannot be read: ${card.error}`);
  const failed = () => byId("stage").replaceChildren(make("p", { class: "missing" }, "The image can no longer be opened. Was it moved?"));
  const button = make("button", { type: "button", class: "whole", "aria-label": "Full size", onclick: () => act("original") }, card.image);
  card.ready.then((isThere) => (isThere ? sized(card.image) : failed()));
  return button;
}

/** Shows the pixels of a small image as they are. */
function sized(image) {
  image.classList.toggle("tiny", Math.max(image.naturalWidth, image.naturalHeight) <= TINY);
}

/** Puts the other image of a finding next to an image. */
function withOther(card, image) {
  const { finding } = card;
  if (!finding || finding.other === null) return image;
  const place = make("div", { class: "whole" });
  const failed = () => place.replaceChildren(make("p", { class: "missing" }, "The other image cannot be opened."));
  const other = make("img", { alt: "", src: finding.other, onload: () => sized(other), onerror: failed });
  place.append(other);
  const where = finding.is_elsewhere ? "In the other split" : "The other";
  return make("div", { class: "pair" },
    make("figure", {}, image, make("figcaption", {}, `This image: ${nameOf(card.given)}`)),
    make("figure", {}, place, make("figcaption", { title: finding.other_id }, `${where}: ${finding.other_label}`)));
}

function findingLines({ finding, answer }) {
  const sure = finding.score < 1 ? ` (${finding.other_id ? "similarity" : "certainty"} ${score(finding.score)})` : "";
  const text = `${finding.title}${sure}${finding.other_id ? `: the other is ${finding.other_id}` : ""}`;
  const does = { "keep-one": "Keep one (d) keeps this image, with the label that was answered, and leaves its copies out of the corrected data; a label counts for all of them, and keeps them all.", drop: `Leave out (d) leaves this image out of the corrected data; ${finding.other_id ? "the other one stays" : "that says nothing of its label"}.` };
  return [
    make("p", { class: "badge found" }, text[0].toUpperCase() + text.slice(1)),
    finding.other_answer && make("p", { class: "numbers answered" }, `The other image: ${answered(finding.other_answer)}`),
    finding.drop && make("p", { class: "numbers does" }, answer && finding.drop === "drop" ? `${does[finding.drop]} It replaces the answer that is there.` : does[finding.drop]),
  ].filter(Boolean);
}

function grid(card, act) {
  const cells = card.members.map((member, place) => {
    member.isOut ??= false;
    const button = make("button", {
      type: "button",
      class: "member",
      "aria-pressed": String(!member.isOut),
      "aria-label": `Image ${place + 1}, ${member.id}`,
      onclick: () => {
        member.isOut = !member.isOut;
        button.setAttribute("aria-pressed", String(!member.isOut));
        act("regroup");
      },
    }, member.error ? make("span", { class: "missing" }, member.error) : member.image);
    return button;
  });
  return make("div", { class: "grid" }, ...cells);
}

function about(card) {
  const parts = [];
  if (card.mode === "audit") parts.push(make("p", { class: "badge" }, "Audit: drawn at random. Which class is it?"));
  if (card.members) {
    const inside = card.members.filter((each) => !each.isOut).length;
    parts.push(make("p", { class: "badge group" }, `${inside} of ${card.members.length} look-alikes. Click those that do not belong.`));
  }
  if (card.is_alone) parts.push(make("p", { class: "badge group" }, "No look-alike of this image is left, so it is answered alone."));
  if (card.finding) parts.push(...findingLines(card));
  const facts = [fact("Given", nameOf(card.given), "given")];
  if (card.mode !== "audit" && card.suggested !== null) {
    const isSame = card.suggested === card.given;
    const sure = card.confidence === null ? "" : ` ${percent(card.confidence)}`;
    facts.push(fact("Suggested", nameOf(card.suggested), isSame ? "suggested same" : "suggested", sure));
  }
  parts.push(make("dl", { class: "facts" }, ...facts));
  if (!card.members) parts.push(make("p", { class: "id", title: named(card) }, named(card)));
  if (card.mode !== "audit" && !card.members && card.p_clean !== null) {
    const flag = card.flagged ? "flagged" : "not flagged";
    parts.push(make("p", { class: "numbers" }, `p_clean ${score(card.p_clean)} · #${count(card.rank)} · ${flag}`));
  }
  if (card.votes?.length && !card.members) parts.push(make("p", { class: "numbers votes", title: card.votes.map(votes).join("\n") }, `Annotators: ${card.votes.map(votesInShort).join(" · ")}`));
  if (card.copies.length) {
    const others = card.copies.slice(0, NAMED_COPIES).map((each) => `${each.id} (${nameOf(each.given)})`).join(", ");
    const more = card.copies.length > NAMED_COPIES ? ` and ${count(card.copies.length - NAMED_COPIES)} more` : "";
    parts.push(make("p", { class: "numbers" }, `Copies, which your answer counts for too: ${others}${more}`));
  }
  if (card.answer) parts.push(make("p", { class: "numbers answered" }, answered(card.answer)));
  return parts;
}

/** Names an image by its id, a box also by the image that it is from. */
function named(card) {
  return card.box?.image ? `${card.id} in ${card.box.image}` : card.id;
}

function votes({ label, by }) {
  return `${nameOf(label)}: ${by.join(", ")}`;
}

/** Names the annotators while they are few; the title of the line names all. */
function votesInShort(vote) {
  return vote.by.length <= NAMED ? votes(vote) : `${nameOf(vote.label)}: ${count(vote.by.length)} of them`;
}

function fact(term, text, kind, more = "") {
  return make("div", { class: kind }, make("dt", {}, term), make("dd", { title: text }, make("span", { class: "name" }, text), more && make("small", {}, more)));
}

function saying({ kind, labels }) {
  const texts = { label: labels.join(", "), several: labels.join(" and "), none: "none of the classes", wrong: "wrong", drop: "left out", "keep-one": "kept, its copies left out", unsure: "unsure" };
  return texts[kind];
}

function answered(answer) {
  const note = `${answer.keeps && answer.kind !== "keep-one" ? ", one of its copies kept" : ""}${answer.note ? ` · ${answer.note}` : ""}`;
  if (answer.disputed) return `Disputed: ${answer.votes.map((vote) => `${vote.reviewer} says ${saying(vote)}`).join(", ")}${note}`;
  return `Answered: ${saying(answer)}, by ${answer.reviewers.join(", ")}${note}`;
}

/** Shows the classes on the keys 1 to 3, and the recent ones on 4 to 9. */
export function showTop(card, state, act) {
  byId("main").classList.toggle("choosing", state.chosen !== null);
  byId("top").replaceChildren(...card.top.map((choice, place) => topChoice(card, choice, place, state, act)));
  const recent = state.recent.filter((label) => !card.top.some((choice) => choice.label === label)).slice(0, 6);
  state.onDigits = recent;
  const chosen = [...(state.chosen ?? [])].filter((label) => !recent.includes(label) && !card.top.some((choice) => choice.label === label));
  byId("recent").replaceChildren(
    ...recent.map((label, place) => chip(label, String(place + 4), state, act)),
    ...chosen.map((label) => chip(label, "", state, act)),
    ...(state.chosen === null ? [] : [make("button", { type: "button", class: "primary", disabled: state.chosen.size < 2, onclick: () => act("accept") }, make("kbd", {}, "Enter"), " These classes")]),
  );
}

function topChoice(card, choice, place, state, act) {
  const isSuggested = card.mode !== "audit" && choice.label === card.suggested && card.suggested !== card.given;
  const isGiven = choice.label === card.given;
  const note = isSuggested ? "suggested" : isGiven ? "given" : "";
  const button = make("button", {
    type: "button",
    class: ["choice", isSuggested && "suggested", isGiven && "given"].filter(Boolean).join(" "),
    "aria-keyshortcuts": String(place + 1),
    "aria-pressed": state.chosen === null ? null : String(state.chosen.has(choice.label)),
    onclick: () => act("label", choice.label),
  }, make("kbd", {}, String(place + 1)), make("span", { class: "name", title: nameOf(choice.label) }, nameOf(choice.label)), note && make("small", {}, note));
  return make("li", {}, button, make("div", { class: "examples", "aria-hidden": "true" }, ...(choice.images ?? [])));
}

function chip(label, digit, state, act) {
  return make("button", {
    type: "button",
    class: "chip",
    title: nameOf(label),
    "aria-pressed": state.chosen === null ? null : String(state.chosen.has(label)),
    onclick: () => act("label", label),
  }, digit && make("kbd", {}, digit), make("span", { class: "name" }, nameOf(label)));
}

/** Fills the dialog with the image as it is, and the nearest images of the given and the suggested class. */
export function showOriginal(card, near) {
  const dialog = byId("original");
  const image = make("img", { alt: "", src: original(card.row) });
  image.addEventListener("load", () => {
    size.textContent = `${image.naturalWidth} × ${image.naturalHeight} pixels`;
    sized(image);
  });
  const size = make("span", { class: "muted" });
  const zoom = () => { if (full.classList.toggle("actual") && card.box && image.isOfCard) toMiddle(full, image, card.box); };
  const full = make("button", { type: "button", class: "full", title: "Fit, or pixel by pixel", onclick: zoom }, image);
  image.isOfCard = true;
  const strips = make("div", { class: "strips" });
  dialog.replaceChildren(
    make("p", { class: "head" }, make("span", { class: "id", title: named(card) }, named(card)), size, make("button", { type: "button", class: "quiet", onclick: () => dialog.close() }, "Close")),
    full,
    strips,
  );
  dialog.showModal();
  near.then((groups) => strips.replaceChildren(...groups.map((each) => strip(each, card, image))), () => {});
}

/** Scrolls a view of an image, pixel by pixel, to the box in it. */
function toMiddle(view, image, { middle, is_relative: isRelative }) {
  if (!middle) return;
  const [across, down] = isRelative ? [image.naturalWidth, image.naturalHeight] : [1, 1];
  view.scrollTo(middle[0] * across - view.clientWidth / 2, middle[1] * down - view.clientHeight / 2);
}

function strip(near, card, image) {
  const role = near.label === card.given ? "given" : near.label === card.suggested ? "suggested" : "";
  const title = make("h3", {}, nameOf(near.label), " ", make("small", {}, role));
  const images = near.examples.map((row) => make("button", { type: "button", "aria-label": "Show this image", onclick: () => { image.isOfCard = false; image.src = original(row); } },
    make("img", { alt: "", src: thumbnail(row, "small") })));
  return make("section", {}, title, images.length ? make("div", { class: "row" }, ...images) : make("p", { class: "muted" }, "No other image of this class"));
}
