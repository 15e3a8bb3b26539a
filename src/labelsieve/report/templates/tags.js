(() => {
  const source = find("data");
  if (!source) return; // no pair to show
  const { key, cards } = JSON.parse(source.textContent);
  const markKey = `labelsieve-tag-marks-${key}`;
  const KEYS = { 1: "present", p: "present", 2: "absent", a: "absent", 3: "unsure", u: "unsure" };
  const SAID = { present: "in the image", absent: "not in the image", unsure: "hard to say" };
  const items = [...document.querySelectorAll("[data-card]")]; // items[i] shows cards[i]
  const pairOf = ({ id, class_name: name }) => JSON.stringify([id, name]);
  const marks = readStored(markKey, (mark) => mark in SAID);
  let current = 0;

  function setMark(index, mark) {
    const pair = pairOf(cards[index]);
    if (marks.get(pair) === mark) marks.delete(pair);
    else marks.set(pair, mark);
    find("volatile").hidden = storeMap(markKey, marks);
    showMark(index);
    tally();
    find("said").textContent = `${cards[index].class_name}: ${SAID[marks.get(pair)] ?? "mark removed"}`;
  }

  function showMark(index) {
    const mark = marks.get(pairOf(cards[index]));
    if (mark) items[index].dataset.marked = mark;
    else delete items[index].dataset.marked;
    items[index].querySelector(".about").dataset.said = SAID[mark] ?? "";
    press(items[index].querySelectorAll("[data-mark]"), mark);
  }

  const tally = () => showTally(Object.keys(SAID), cards.map((card) => marks.get(pairOf(card))));

  function csv() {
    const lines = ["id,class_name,kind,label_quality,mark"];
    for (const card of cards) {
      const mark = marks.get(pairOf(card));
      if (mark) lines.push(csvLine([card.id, card.class_name, card.kind, String(card.label_quality), mark]));
    }
    return lines.join("\n") + "\n";
  }

  function activate(index, focus = false) {
    moveStop(items[current], items[index]);
    current = index;
    if (focus) items[index].firstElementChild.focus();
  }

  function columns() {
    const [first, ...others] = items[current].parentElement.children;
    const next = others.findIndex((item) => item.offsetTop > first.offsetTop);
    return next < 0 ? others.length + 1 : next + 1;
  }

  function step(key) {
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns(), ArrowDown: columns() }[key];
    activate(Math.min(items.length - 1, Math.max(0, current + by)), true);
  }

  document.addEventListener("keydown", (event) => {
    const item = event.target.closest("[data-card]"); // never a card that has not the focus: it may be out of sight
    if (!item || !plain(event) || keepsKeys(event.target)) return;
    const mark = KEYS[event.key.toLowerCase()];
    if (mark) {
      setMark(current, mark);
      const isMarked = marks.has(pairOf(cards[current]));
      activate(find("advance").checked && isMarked ? Math.min(items.length - 1, current + 1) : current, true);
    } else if (event.key.startsWith("Arrow")) {
      step(event.key);
    } else {
      return;
    }
    event.preventDefault();
  });

  items.forEach((item, index) => {
    const buttons = find("marks").content.cloneNode(true);
    for (const button of buttons.children) {
      button.tabIndex = -1;
      button.addEventListener("click", () => setMark(index, button.dataset.mark));
    }
    item.querySelector(".marks").append(buttons);
    item.firstElementChild.tabIndex = -1;
    item.addEventListener("focusin", () => activate(index));
    showMark(index);
  });
  offerDownload(csv);
  activate(0);
  tally();
})();
