// The cards of this browser: fetched ahead with their images decoded, so that the next one is there at once.

import { ask, before, client, thumbnail } from "./api.js";

const AHEAD = 8;
// Milliseconds: a card is drawn before the one that comes last, with a dozen small images, is asked for.
const DRAWN = 100;

export class Deck {
  /** @param {() => object} spec What to ask for: queue, filters and reviewer. */
  constructor(spec) {
    this.spec = spec;
    this.cards = [];
    this.last = null;
    this.isEmpty = false;
    this.round = 0;
    this.fetching = null;
    this.instead = before;
  }

  /** Begins again, as with another queue; the cards that it holds are given back. */
  restart() {
    this.round += 1;
    this.instead = client;
    this.cards = [];
    this.last = null;
    this.isEmpty = false;
    this.fetching = null;
  }

  /** Returns the next card, with its images on their way; null at the end of the queue. */
  async next() {
    if (!this.cards.length && !this.isEmpty) await this.fill();
    const card = this.cards.shift() ?? null;
    if (this.cards.length < AHEAD && !this.isEmpty) setTimeout(() => this.fill().catch(() => {}), DRAWN);
    return card;
  }

  /** An answer may let the copy of its image come: the end of the queue is looked for again. */
  again() {
    this.isEmpty = false;
  }

  /** Puts a card that was undone before all others. */
  putBack(...cards) {
    this.cards.unshift(...cards.filter(Boolean).map(prepared));
  }

  fill() {
    if (this.fetching) return this.fetching;
    // one that was begun before a restart does not end the one after it
    const fetching = this.fetch().finally(() => { if (this.fetching === fetching) this.fetching = null; });
    this.fetching = fetching;
    return fetching;
  }

  async fetch() {
    const missing = AHEAD - this.cards.length;
    if (missing < 1) return;  // cards were put back in the meantime
    const round = this.round;
    const spec = this.spec();
    const isGroup = spec.queue === "group";
    const looksBack = spec.filters.state !== "open";
    const instead = this.instead;
    this.instead = null;
    try {
      const reply = await ask("/cards", {
        ...spec, count: isGroup ? 1 : missing, after: looksBack ? this.last : null, instead_of: instead,
      });
      if (round !== this.round) return;
      this.isEmpty = reply.cards.length === 0;
      if (reply.cards.length && looksBack) this.last = reply.cards.at(-1).row;
      this.cards.push(...reply.cards.map(prepared));
    } catch (error) {
      this.instead ??= instead;
      throw error;
    }
  }
}

/** Starts to load and decode the images of a card. */
function prepared(card) {
  const members = card.members ?? [card];
  for (const member of members) {
    if (member.error) continue;
    member.image = new Image();
    member.image.alt = "";
    member.image.decoding = "async";
    member.image.src = thumbnail(member.row, card.members ? "small" : "large");
    member.ready = member.image.decode().then(() => true, () => false);
  }
  for (const choice of card.top) {
    choice.images = choice.examples.map((row) => {
      const image = new Image();
      image.alt = "";
      image.src = thumbnail(row, "small");
      return image;
    });
  }
  return card;
}
