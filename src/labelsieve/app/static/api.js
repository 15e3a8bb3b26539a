// Requests to the server. What it refuses is an Error with its one line; `again` says whether the same may go well later.

import { byId, randomName } from "./dom.js";

const BEFORE = "labelsieve-client";
// Which of the runs that the review went through this page is of.
const { number } = JSON.parse(byId("start").textContent);

export const client = randomName();
/** The page that this one takes the place of, when it was loaded again: its cards are given back. A copy of a tab that
 * stays open takes the place of no page, so that the name is kept only while a page is left. */
export const before = sessionStorage.getItem(BEFORE);
sessionStorage.removeItem(BEFORE);

export async function ask(path, body) {
  let reply;
  try {
    reply = await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ client, number, ...body }),
    });
  } catch {
    throw Object.assign(new Error("The server does not answer. Is `labelsieve review` still running?"), { again: true });
  }
  if (reply.ok) return reply.json();
  if (reply.status === 409) {  // the review continued in a new run
    location.reload();
    return new Promise(() => {});
  }
  const text = await reply.text();
  let message = text.trim();
  try {
    message = JSON.parse(text).error;
  } catch { /* no JSON: a line of text */ }
  throw Object.assign(new Error(message || `The server failed (${reply.status}).`), { again: reply.status >= 500 });
}

/** Gives the cards of this page back when it is closed. */
export function releaseOnClose() {
  addEventListener("pagehide", () => {
    sessionStorage.setItem(BEFORE, client);
    navigator.sendBeacon("/release", new Blob([JSON.stringify({ client })], { type: "application/json" }));
  });
}

export const thumbnail = (row, side) => `/thumbnails/${side}/${row}`;
export const original = (row) => `/images/${row}`;
