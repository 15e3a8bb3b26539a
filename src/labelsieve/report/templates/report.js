(() => {
  const source = find("data");
  if (!source) return; // no image to show
  const { key, names, cards } = JSON.parse(source.textContent);
  for (const card of cards) Object.assign(card, { givenName: names[card.given], suggestedName: names[card.suggested] });
  const markKey = `labelsieve-marks-${key}`;
  const labelKey = `labelsieve-labels-${key}`;
  const KEYS = { 1: "wrong", w: "wrong", 2: "right", r: "right", 3: "unsure", u: "unsure", 4: "suggested", s: "suggested" };
  const KEPT = ["wrong", "right", "unsure"]; // suggested is kept as wrong, with the right class
  const gallery = find("gallery");
  const filter = find("filter");
  const dialog = find("large");
  const items = [...gallery.children]; // items[i] shows cards[i]
  const sequence = items.map((_, index) => index); // all cards as they are sorted
  let sorted = "rank";
  let order = sequence; // the visible ones among them
  let current = 0;

  // ---- Marks ----
  const marks = readStored(markKey, (mark) => KEPT.includes(mark));
  const labels = readStored(labelKey, (name) => names.includes(name)); // the right class of what is marked wrong

  const hasSuggestion = ({ given, suggested }) => given !== suggested;
  /** Returns the mark of a card as its buttons have it. */
  const markOf = ({ id, suggestedName }) => (labels.get(id) === suggestedName ? "suggested" : marks.get(id));

  function setMark(index, mark) {
    const card = cards[index];
    const { id, suggestedName } = card;
    const isRemoved = markOf(card) === mark;
    if (mark === "suggested" && !hasSuggestion(card)) {
      find("said").textContent = `${id}: no other class is suggested`;
      return;
    }
    labels.delete(id);
    if (isRemoved) marks.delete(id);
    else marks.set(id, mark === "suggested" ? "wrong" : mark);
    if (mark === "suggested" && !isRemoved) labels.set(id, suggestedName);
    keepMarks(index);
  }

  function keepMarks(index) {
    const { id } = cards[index];
    const kept = [[markKey, marks], [labelKey, labels]].every(([name, map]) => storeMap(name, map));
    find("volatile").hidden = kept;
    showMark(index);
    tally();
    find("said").textContent = `${id}: ${markText(id) ?? "mark removed"}`;
  }

  const markText = (id) => (labels.has(id) ? `${marks.get(id)}, ${labels.get(id)} is right` : marks.get(id));

  // ---- The right class, by its name ----
  const byName = new Map(names.map((name) => [name.trim().toLowerCase(), name]));
  const choose = find("choose");
  choose.addEventListener("focus", () => {
    if (find("class-list").childElementCount) return;
    find("class-list").append(...names.map((name) => new Option("", name))); // only now: there may be thousands
  });
  choose.addEventListener("input", () => choose.setCustomValidity(""));
  choose.addEventListener("change", () => {
    const name = byName.get(choose.value.trim().toLowerCase());
    const { id, givenName } = cards[current];
    choose.setCustomValidity(name === undefined && choose.value.trim() ? "There is no such class." : "");
    if (!choose.reportValidity()) return;
    if (name === undefined) labels.delete(id);
    else if (name === givenName) marks.set(id, "right");
    else marks.set(id, "wrong");
    if (name !== undefined && name !== givenName) labels.set(id, name);
    else labels.delete(id);
    keepMarks(current);
  });

  /** Gives a card its buttons: in the page they would be a third of the file. */
  function addButtons(item, card) {
    const buttons = find("marks").content.cloneNode(true);
    if (!hasSuggestion(card)) buttons.querySelector("[data-mark=suggested]").remove();
    for (const button of buttons.children) button.tabIndex = -1;
    item.querySelector(".marks").append(buttons);
  }

  function showMark(index) {
    const mark = markOf(cards[index]);
    if (mark) items[index].dataset.marked = mark;
    else delete items[index].dataset.marked;
    items[index].querySelector(".about").dataset.said = markText(cards[index].id) ?? "";
    press(items[index].querySelectorAll("[data-mark]"), mark);
    if (dialog.open && index === current) showInDialog(index);
  }

  function showInDialog(index) {
    press(dialog.querySelectorAll("[data-mark]"), markOf(cards[index]));
    dialog.querySelector("[data-mark=suggested]").hidden = !hasSuggestion(cards[index]);
    choose.value = labels.get(cards[index].id) ?? "";
    choose.setCustomValidity("");
  }

  const tally = () => showTally(KEPT, cards.map(({ id }) => marks.get(id)));

  function csv() {
    const more = cards.some((card) => labels.has(card.id)); // marks alone stay as they always were
    const lines = [`id,given_label,suggested_label,label_quality,mark${more ? ",new_label" : ""}`];
    for (const card of cards) {
      const mark = marks.get(card.id);
      const line = [card.id, card.givenName, card.suggestedName, String(card.quality ?? ""), mark];
      if (more) line.push(labels.get(card.id) ?? "");
      if (mark) lines.push(csvLine(line));
    }
    return lines.join("\n") + "\n";
  }

  offerDownload(csv);

  // ---- Filter and sort ----
  function criteria() {
    const value = (name) => filter.elements[name]?.value ?? "";
    const number = (name, otherwise) => (value(name) === "" ? otherwise : Number(value(name)));
    return {
      given: value("given"), suggested: value("suggested"), text: value("text").trim().toLowerCase(),
      mark: value("mark"), status: value("status"), sort: value("sort"), from: number("from", 0), to: number("to", 1),
    };
  }

  const CHECKS = {
    given: (card, chosen) => chosen.given === "" || card.given === Number(chosen.given),
    suggested: (card, chosen) => chosen.suggested === "" || card.suggested === Number(chosen.suggested),
    status: (card, chosen) => chosen.status === "" || card.flagged === (chosen.status === "flagged"),
    mark: (card, chosen) => chosen.mark === "" || (marks.get(card.id) ?? "none") === chosen.mark,
    quality: (card, chosen) => card.quality >= chosen.from && card.quality <= chosen.to,
    text: (card, chosen) => chosen.text === "" || `${card.id} ${card.image ?? ""}`.toLowerCase().includes(chosen.text),
  };
  const fits = (card, chosen, except = "") =>
    Object.entries(CHECKS).every(([name, check]) => name === except || check(card, chosen));

  // What a list would show if this entry were chosen, the other filters being as they are.
  const VALUES = {
    given: (card) => card.given,
    suggested: (card) => card.suggested,
    mark: (card) => marks.get(card.id) ?? "none",
    status: (card) => (card.flagged ? "flagged" : "near"),
  };
  const plainNames = new Map([...filter.querySelectorAll("option")].map((option) => [option, option.textContent]));
  function showCounts(chosen) {
    for (const [name, value] of Object.entries(VALUES)) {
      const list = filter.elements[name];
      if (!list) continue;
      const counts = new Map();
      let total = 0;
      for (const card of cards) {
        if (!fits(card, chosen, name)) continue;
        counts.set(String(value(card)), (counts.get(String(value(card))) ?? 0) + 1);
        total += 1;
      }
      for (const option of list.options) {
        const count = option.value === "" ? total : counts.get(option.value) ?? 0;
        option.textContent = `${plainNames.get(option)} (${count.toLocaleString("en")})`;
      }
    }
  }

  // ---- Filters live in the address, behind the name of a section: they survive a reload, without any storage ----
  const initial = Object.fromEntries(new FormData(filter));
  function keepFilters() {
    const [section] = location.hash.slice(1).split("&").filter((part) => !part.includes("="));
    const changed = [...new FormData(filter)].filter(([name, value]) => value !== initial[name]);
    const hash = [section, new URLSearchParams(changed).toString()].filter(Boolean).join("&");
    if (hash === location.hash.slice(1)) return;
    try {
      history.replaceState(null, "", hash ? `#${hash}` : location.href.split("#")[0]);
    } catch {
      // a browser may refuse it for a page that is a file
    }
  }

  function restoreFilters() {
    const parts = location.hash.slice(1).split("&");
    const stored = new URLSearchParams(parts.filter((part) => part.includes("=")).join("&"));
    for (const [name, value] of stored) {
      const control = filter.elements[name];
      if (!control || !(name in initial)) continue;
      control.value = value;
      if (control.value !== value) control.value = initial[name]; // no such entry
    }
    return stored.size > 0;
  }

  function compare(sort) {
    const field = sort.replace("-", "");
    const sign = sort.startsWith("-") ? -1 : 1;
    return (a, b) => {
      const [left, right] = [cards[a][field], cards[b][field]];
      const by = typeof left === "string" ? collator.compare(left, right) : left - right;
      return sign * by || cards[a].rank - cards[b].rank;
    };
  }

  function apply() {
    const chosen = criteria();
    if (chosen.sort !== sorted) {
      sequence.sort(compare(chosen.sort));
      gallery.append(...sequence.map((index) => items[index])); // moving a card takes its focus, hence only when needed
      sorted = chosen.sort;
    }
    order = sequence.filter((index) => fits(cards[index], chosen));
    const visible = new Set(order);
    items.forEach((item, index) => { item.hidden = !visible.has(index); });
    find("empty").hidden = order.length > 0;
    showCounts(chosen);
    keepFilters();
    find("shown").textContent = `${order.length.toLocaleString("en")} of ${cards.length.toLocaleString("en")} images shown`;
    if (order.length && !visible.has(current)) activate(order[0]);
  }

  filter.addEventListener("input", apply);
  filter.addEventListener("submit", (event) => event.preventDefault());
  find("clear").addEventListener("click", () => {
    filter.reset();
    apply();
  });
  window.addEventListener("hashchange", () => {
    if (location.hash.includes("=")) {
      filter.reset();
      restoreFilters();
      apply();
    } else {
      keepFilters(); // a link to a section has taken them away
    }
  });
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-given]");
    if (!link) return;
    filter.reset();
    filter.elements.given.value = link.dataset.given; // every class that is linked stands in the lists
    filter.elements.suggested.value = link.dataset.suggested ?? "";
    apply();
  });

  // ---- Moving about ----
  function activate(index, focus = false) {
    moveStop(items[current], items[index]);
    current = index;
    if (focus) items[index].firstElementChild.focus();
  }

  function columns() {
    const top = items[order[0]].offsetTop;
    const next = order.findIndex((index) => items[index].offsetTop > top);
    return next < 1 ? order.length : next;
  }

  function step(key) {
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns(), ArrowDown: columns(), Home: -Infinity, End: Infinity }[key];
    if (by === undefined) return false;
    const target = order.indexOf(current) + by;
    const last = order.length - 1;
    if (Math.abs(by) > 1 && Number.isFinite(by) && (target < 0 || target > last)) return true; // no row above or below
    activate(order[Math.min(last, Math.max(0, target))], true);
    return true;
  }

  /** Marks the current card and goes to the next one, also where the filter takes the marked card away. */
  function markByKey(mark) {
    const place = order.indexOf(current);
    const following = order[place + 1] ?? order[place];
    setMark(current, mark);
    const removed = marks.get(cards[current].id) === undefined;
    const target = find("advance").checked && !removed ? following : current;
    apply();
    return order.includes(target) ? target : order[Math.min(place, order.length - 1)];
  }

  /** Returns whether most of a card can be seen, between the bars at the top and the bottom. */
  function isSeen(item) {
    const box = item.getBoundingClientRect();
    const middle = (box.top + box.bottom) / 2;
    return box.height > 0 && middle > find("topbar").offsetHeight && middle < window.innerHeight;
  }

  /** What a key means without a card in focus: for the current card if it can be seen, never for one out of sight. */
  function aim(event) {
    if (event.target.closest("#gallery")) return true;
    if (items[current] && order.includes(current) && isSeen(items[current])) return true;
    const seen = order.find((index) => isSeen(items[index]));
    if (seen === undefined && !KEYS[event.key.toLowerCase()]) return false; // arrows scroll the page
    activate(seen ?? (order.includes(current) ? current : order[0]), true); // shown first, marked by the next key
    event.preventDefault();
    return false;
  }

  document.addEventListener("keydown", (event) => {
    if (!plain(event) || dialog.open || !order.length || keepsKeys(event.target)) return;
    const mark = KEYS[event.key.toLowerCase()];
    const opens = event.key === "Enter" && event.target.matches("article, body");
    const moves = event.key.startsWith("Arrow") || (event.target.closest("#gallery") && ["Home", "End"].includes(event.key));
    if (!(mark || opens || moves) || !aim(event)) return;
    if (mark) {
      const target = markByKey(mark);
      if (target !== undefined) activate(target, true);
    } else if (opens) {
      enlarge(current);
    } else {
      step(event.key);
    }
    event.preventDefault();
  });

  gallery.addEventListener("focusin", (event) => {
    const item = event.target.closest("li");
    if (item) activate(Number(item.dataset.card));
  });

  gallery.addEventListener("click", (event) => {
    const item = event.target.closest("li");
    if (!item) return;
    const index = Number(item.dataset.card);
    const button = event.target.closest("[data-mark]");
    activate(index, !button);
    if (button) {
      setMark(index, button.dataset.mark);
      apply();
      if (items[index].hidden && order.length) activate(current, true);
    } else if (event.target.closest(".stage")) {
      enlarge(index);
    }
  });

  // ---- Enlarged view ----
  const pixels = (width, height) => `${width.toLocaleString("en")} × ${height.toLocaleString("en")}`;

  /** Shows a thumbnail or the image file, and says the size of the image itself and, if it is another, of what is shown. */
  function show(source, { size, box: area }) {
    const image = find("large-image");
    const box = image.parentElement;
    setWhole(false);
    find("whole").hidden = true;
    find("whole").textContent = "Original size";
    const inside = area ? `box of ${pixels(...[area[2] - area[0], area[3] - area[1]].map(Math.round))} in ` : "";
    find("large-size").textContent = size ? `${inside}${pixels(...size)} pixels` : "";
    image.onload = () => {
      if (area) return; // drawn as large as the view
      const { naturalWidth: width, naturalHeight: height } = image;
      if (size && width < size[0]) find("large-size").textContent += `, shown from ${pixels(width, height)}`;
      find("whole").hidden = width <= box.clientWidth && height <= box.clientHeight;
    };
    image.src = source;
  }

  /** Shows the image file itself once it is loaded; the thumbnail stays where the file is missing or of another kind. */
  function loadFile(index) {
    const loader = new Image();
    loader.onload = () => {
      if (!dialog.open || current !== index) return;
      if (cards[index].box) showBox(loader, cards[index]);
      else show(loader.src, cards[index]);
    };
    loader.onerror = () => { delete cards[index].file; };
    loader.src = cards[index].file;
  }

  const cutout = find("large-cutout");

  /** Shows a box in the image file, sharper than the thumbnail: what is around it, and with a button the whole image. */
  function showBox(image, card) {
    const { naturalWidth: width, naturalHeight: height } = image;
    if (width !== card.size[0] || height !== card.size[1]) return; // another file by now, or one turned another way
    const mark = document.createElement("span");
    image.alt = card.id;
    cutout.replaceChildren(image, mark);
    find("large-image").hidden = true;
    find("whole").hidden = false;
    find("whole").textContent = "Whole image";
    place(card, false);
    setBoxed(true);
  }

  /** Moves image and box such that a part of the image fills the view: its surroundings, or all of it. */
  function place({ size, box, window: part }, isWhole) {
    const [left, top, right, bottom] = isWhole ? [0, 0, ...size] : part;
    const [across, down] = [100 / (right - left), 100 / (bottom - top)];
    const [image, mark] = cutout.children;
    const width = `${size[0] * across}%`;
    Object.assign(image.style, { left: `${-left * across}%`, top: `${-top * down}%`, width, height: `${size[1] * down}%` });
    const inset = (length, share) => `max(4px, ${length * share}%)`; // the lines stay in sight at the edges
    Object.assign(mark.style, {
      left: inset(box[0] - left, across), top: inset(box[1] - top, down),
      right: inset(right - box[2], across), bottom: inset(bottom - box[3], down),
    });
    mark.classList.toggle("lost", Math.max(box[2] - box[0], box[3] - box[1]) < Math.max(...size) / 20);
    cutout.style.setProperty("--ratio", String((right - left) / (bottom - top)));
    cutout.classList.toggle("whole", isWhole);
  }

  function setBoxed(on) {
    cutout.hidden = !on;
    cutout.parentElement.classList.toggle("boxed", on);
  }

  function setWhole(on) {
    if (cutout.hidden) document.querySelector(".picture").classList.toggle("whole", on);
    else place(cards[enlarged], on);
    find("whole").setAttribute("aria-pressed", String(on));
  }
  cutout.addEventListener("click", () => find("whole").click());
  find("whole").addEventListener("click", () => setWhole(find("whole").getAttribute("aria-pressed") !== "true"));
  find("large-image").addEventListener("click", () => {
    if (!find("whole").hidden) setWhole(find("whole").getAttribute("aria-pressed") !== "true");
  });

  let enlarged = 0; // kept apart: closing gives the focus back to the card that was opened first
  function enlarge(index) {
    activate(index);
    enlarged = index;
    const card = cards[index];
    const small = items[index].querySelector("img");
    setBoxed(false);
    find("large-image").hidden = !small;
    find("large-missing").hidden = Boolean(small);
    if (small) show(small.src, card);
    if (small && card.file) loadFile(index);
    find("large-image").className = small?.closest(".tiny") ? "tiny" : "";
    find("large-image").alt = card.id;
    find("large-place").textContent = `${order.indexOf(index) + 1} of ${order.length}`;
    find("large-title").textContent = card.id;
    showFrom(card);
    find("large-given").textContent = card.givenName;
    find("large-suggested").classList.toggle("same", card.given === card.suggested);
    // as the card writes them: a number that is rounded here and not there would be another one
    find("large-suggested").textContent = `${card.suggestedName}, ${items[index].querySelector(".suggested small").textContent}`;
    find("large-quality").textContent = items[index].querySelector(".numbers b").textContent;
    find("large-rank").textContent = card.rank.toLocaleString("en");
    if (!dialog.open) {
      dialog.showModal();
      find("close").focus({ preventScroll: true }); // not by `autofocus`, which browsers obey, and complain of, when the page is loaded
    }
    dialog.scrollTop = 0;
    showInDialog(index);
    find("previous").disabled = order[0] === index;
    find("next").disabled = order.at(-1) === index;
  }

  /** Says which image a box is from, with a link to the file. */
  function showFrom({ box, image, file }) {
    const name = document.createElement(file ? "a" : "span");
    name.textContent = image;
    if (file) Object.assign(name, { href: file, target: "_blank", rel: "noopener" });
    find("large-from").replaceChildren("in ", name);
    find("large-from").hidden = !box || !image;
  }

  function turn(by) {
    const target = order[order.indexOf(current) + by];
    if (target !== undefined) enlarge(target);
  }

  dialog.addEventListener("keydown", (event) => {
    if (!plain(event) || event.target === choose) return;
    const mark = KEYS[event.key.toLowerCase()];
    if (mark) {
      const target = markByKey(mark);
      if (target === undefined) dialog.close();
      else enlarge(target);
    } else if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
      turn(event.key === "ArrowLeft" ? -1 : 1);
    } else {
      return;
    }
    event.preventDefault();
  });
  dialog.addEventListener("click", (event) => {
    const button = event.target.closest("[data-mark]");
    if (button) {
      setMark(current, button.dataset.mark);
    } else if (event.target === dialog) {
      dialog.close(); // a click beside the view
    }
  });
  dialog.addEventListener("close", () => {
    activate(enlarged);
    apply();
    if (order.length) activate(current, true);
  });
  find("previous").addEventListener("click", () => turn(-1));
  find("next").addEventListener("click", () => turn(1));
  find("close").addEventListener("click", () => dialog.close());

  // ---- Start ----
  items.forEach((item, index) => {
    addButtons(item, cards[index]);
    item.firstElementChild.tabIndex = -1;
    item.querySelector(".stage").tabIndex = -1;
    if (marks.has(cards[index].id)) showMark(index);
  });
  activate(0);
  restoreFilters();
  find("volatile").hidden = storage !== null;
  if (matchMedia("(max-width: 700px)").matches) find("filters").open = false;
  tally();
  apply();
})();
