// The names of the classes, which may be 50,000, and the search among them.

const MOST = 60;
let names = [];
let folded = [];

export let pairs = [];

export async function load() {
  const reply = await fetch("/classes");
  if (!reply.ok) throw new Error((await reply.text()).trim());
  const found = await reply.json();
  names = found.names;
  pairs = found.pairs;
  folded = names.map(fold);
}

const fold = (text) => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();

export const nameOf = (index) => names[index];
export const total = () => names.length;

/** Returns indices of classes that contain a text: those that begin with it first, then by name of a word in them. */
export function search(text) {
  const asked = fold(text.trim());
  const found = [[], [], []];
  for (let index = 0; index < folded.length; index += 1) {
    const place = folded[index].indexOf(asked);
    if (place < 0) continue;
    const rank = place === 0 ? 0 : /[\p{L}\p{N}]/u.test(folded[index][place - 1]) ? 2 : 1;
    if (found[rank].length < MOST) found[rank].push(index);
    if (!asked && found[0].length === MOST) break;
  }
  if (asked) found[0].sort((one, other) => folded[one].length - folded[other].length || one - other);
  return { found: found.flat().slice(0, MOST), isAll: found.flat().length < MOST };
}
