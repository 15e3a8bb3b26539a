// Which queue is looked at, and with which filters. They outlive a reload of the page.

import { byId, count, make } from "./dom.js";
import { nameOf, pairs, total } from "./names.js";
import { pick } from "./picker.js";

const KEPT = "labelsieve-filters";
const USUAL = { given: null, suggested: null, low: 0, high: 1, text: "", which: "flagged", state: "open" };

export class Filters {
  /** @param {object} start What the page knows of the run. @param {() => void} changed Called after each change. */
  constructor(start, changed) {
    this.form = byId("filters");
    this.findings = start.findings;
    this.queue = byId("queue");
    this.changed = changed;
    this.values = { ...USUAL, which: start.flagged ? "flagged" : "all" };
    this.usual = { ...this.values };
    this.restore();
    this.queue.addEventListener("change", () => { this.show(); this.keep(); changed(); });
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.form.addEventListener("input", (event) => this.read(event.target));
    this.form.addEventListener("click", (event) => this.choose(event.target.closest(".choose")));
    byId("filter-reset").addEventListener("click", () => this.set(this.usual));
  }

  /** Returns what the server is asked for. */
  spec() {
    const { given, suggested, ...others } = this.values;
    return {
      queue: this.queue.value,
      filters: { ...others, given: given === null ? null : nameOf(given), suggested: suggested === null ? null : nameOf(suggested) },
    };
  }

  /** Shows the form once the names of the classes are there. */
  ready() {
    for (const name of ["given", "suggested"]) if (this.values[name] >= total()) this.values[name] = null;
    const options = pairs.map((pair, place) => make("option", { value: place }, `${nameOf(pair.given)} → ${nameOf(pair.suggested)} (${count(pair.count)})`));
    this.form.elements.pair.append(...options);
    this.show();
  }

  set(changes) {
    Object.assign(this.values, changes);
    this.show();
    this.keep();
    this.changed();
  }

  toggle() {
    this.form.hidden = !this.form.hidden;
    byId("filter-button").setAttribute("aria-expanded", String(!this.form.hidden));
    if (!this.form.hidden) this.form.elements.which.focus();
    else if (this.form.contains(document.activeElement)) document.activeElement.blur();  // keys answer the card again
  }

  /** Closes the form; returns whether it was open. */
  close() {
    if (this.form.hidden) return false;
    this.toggle();
    return true;
  }

  /** Shows how many images each queue of findings has left. */
  showLeft(findings) {
    for (const option of this.queue.options) {
      if (option.value in findings) option.textContent = `${option.dataset.title} (${count(findings[option.value])})`;
    }
  }

  read(field) {
    if (field.name === "pair") {
      const pair = field.value === "" ? { given: null, suggested: null } : pairs[Number(field.value)];
      this.set({ given: pair.given, suggested: pair.suggested });
      return;
    }
    if (field.name === "low" || field.name === "high") {
      const number = field.value === "" ? USUAL[field.name] : Number(field.value);
      if (!(number >= 0 && number <= 1)) return;
      this.soon({ [field.name]: number });
    } else if (field.name === "text") this.soon({ text: field.value });
    else this.set({ [field.name]: field.value });
  }

  /** While a person types, not every letter begins a queue. */
  soon(changes) {
    Object.assign(this.values, changes);
    clearTimeout(this.waiting);
    this.waiting = setTimeout(() => this.set({}), 300);
  }

  async choose(button) {
    if (!button) return;
    const chosen = await pick({ addition: "All" });
    if (chosen !== null) this.set({ [button.name]: chosen < 0 ? null : chosen });
  }

  show() {
    const { elements } = this.form;
    const { given, suggested, low, high, text, which, state } = this.values;
    for (const [name, value] of Object.entries({ given, suggested })) {
      elements[name].textContent = value === null ? "All" : nameOf(value);
    }
    Object.assign(elements.which, { value: which });
    Object.assign(elements.state, { value: state });
    const place = pairs.findIndex((pair) => pair.given === given && pair.suggested === suggested);
    elements.pair.value = place < 0 ? "" : String(place);
    for (const [name, value] of Object.entries({ low: low === 0 ? "" : low, high: high === 1 ? "" : high, text })) {
      if (document.activeElement !== elements[name]) elements[name].value = value;
    }
    const isAudit = this.queue.value === "audit";
    const active = Object.keys(USUAL).filter((name) => this.values[name] !== this.usual[name]).length;
    byId("filter-count").textContent = active && !isAudit ? ` (${active})` : "";
    byId("filter-button").disabled = isAudit;
    if (isAudit) this.form.hidden = true;
    elements.which.disabled = this.queue.value in this.findings;
  }

  keep() {
    sessionStorage.setItem(KEPT, JSON.stringify({ queue: this.queue.value, values: this.values }));
  }

  restore() {
    try {
      const kept = JSON.parse(sessionStorage.getItem(KEPT) ?? "{}");
      if (kept.queue && [...this.queue.options].some((each) => each.value === kept.queue)) this.queue.value = kept.queue;
      Object.assign(this.values, kept.values ?? {});
    } catch { /* what is kept is no JSON: begin as usual */ }
  }
}
