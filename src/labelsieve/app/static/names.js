// The names of the classes, which may be 50,000, and the search among them.

const MAX_MATCHES = 60;
let names = [];
let folded = [];

export let pairs = [];

export async function load() {
  const reply = await fetch("/classes");
  if (!reply.ok) throw new Error((await reply.text()).trim());
  const classes = await reply.json();
  names = classes.names;
  pairs = classes.pairs;
  folded = names.map(fold);
}

const fold = (text) => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();

export const nameOf = (index) => names[index];
export const total = () => names.length;

/** Returns indices of classes that contain a text: those that begin with it first, then by name of a word in them. */
export function search(text) {
  const query = fold(text.trim());
  const matches = [[], [], []];
  for (let index = 0; index < folded.length; index += 1) {
    const place = folded[index].indexOf(query);
    if (place < 0) continue;
    const rank = place === 0 ? 0 : /[\p{L}\p{N}]/u.test(folded[index][place - 1]) ? 2 : 1;
    if (matches[rank].length < MAX_MATCHES) matches[rank].push(index);
    if (!query && matches[0].length === MAX_MATCHES) break;
  }
  if (query) matches[0].sort((one, other) => folded[one].length - folded[other].length || one - other);
  return { matches: matches.flat().slice(0, MAX_MATCHES), isAll: matches.flat().length < MAX_MATCHES };
}
