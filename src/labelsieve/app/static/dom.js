// Small helpers to make and find elements. Text is always set as text: no name of a user is ever read as HTML.

export const byId = (id) => document.getElementById(id);

/** Makes an element: make("p", {class: "a", onclick: f}, "text", child). */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((each) => each !== null && each !== undefined && each !== false));
  return element;
}

/** Says something short at the bottom of the page for a while. */
let hiding = 0;
export function toast(text) {
  const place = byId("toast");
  place.textContent = text;
  place.hidden = false;
  clearTimeout(hiding);
  hiding = setTimeout(() => { place.hidden = true; }, 2500);
}

export const percent = (share) => `${(100 * share).toFixed(share < 0.1 && share > 0 ? 1 : 0)} %`;

export const count = (number) => number.toLocaleString("en-US");

/** Writes seconds as a person says them. */
export function duration(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 90) return `${minutes} min`;
  const hours = seconds / 3600;
  return hours < 10 ? `${hours.toFixed(1)} h` : `${Math.round(hours)} h`;
}

/** A number from 0 to 1 with the digits that a person reads. */
export function score(value) {
  if (value === null || value === undefined) return "–";
  return value > 0 && value < 0.001 ? "< 0.001" : value.toFixed(3);
}

export const randomName = () => [...crypto.getRandomValues(new Uint8Array(12))]
  .map((each) => each.toString(16).padStart(2, "0")).join("");
