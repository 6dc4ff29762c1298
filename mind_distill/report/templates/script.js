"use strict";
const all = (selector, root = document) => [...root.querySelectorAll(selector)];

const theme = document.getElementById("theme");
theme.hidden = false;
theme.addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});

const written = document.getElementById("written");
written.addEventListener("click", () => {
  written.setAttribute("aria-pressed", String(document.documentElement.toggleAttribute("data-written")));
});

// The numbers of a figure: each transparent band, and each point of a map, carries its own as text.
const tip = document.getElementById("tip");
const BAND = ".bands_marks [data-said], .points circle";
function textOf(band) {
  return band.dataset.said ?? itemOf(band).textContent;
}
function itemOf(circle) {
  return circle.closest(".map").querySelector("ol").children[circle.dataset.i];
}
function hide() {
  tip.hidden = true;
  all(".on").forEach((band) => band.classList.remove("on"));
}
function show(band) {
  hide();
  band.classList.add("on");
  tip.textContent = textOf(band);
  tip.hidden = false;
  const at = band.getBoundingClientRect();
  const size = tip.getBoundingClientRect();
  const right = at.right + 8;
  tip.style.left = `${Math.max(4, right + size.width < innerWidth ? right : at.left - size.width - 8)}px`;
  tip.style.top = `${Math.max(4, Math.min(at.top, innerHeight - size.height - 4))}px`;
}
document.addEventListener("pointermove", (event) => {
  const band = event.target.closest?.(".drawing") && event.target.closest(BAND);
  if (!band) return tip.hidden ? null : hide();
  if (!band.classList.contains("on")) show(band);
});
document.addEventListener("focusout", hide);
document.addEventListener("keydown", (event) => {
  const drawing = event.target.closest?.(".drawing");
  if (event.key === "Escape") hide();
  const move = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (!drawing) return;
  const bands = all(BAND, drawing);
  const now = bands.findIndex((band) => band.classList.contains("on"));
  if (event.key === "Enter" && now >= 0 && bands[now].dataset.i) return open(bands[now]);
  const vertical = event.key === "ArrowUp" || event.key === "ArrowDown";
  if (!move || !bands.length || (vertical && !drawing.matches(".points"))) return;
  event.preventDefault();
  show(bands[Math.min(bands.length - 1, Math.max(0, now + move))]);
});
addEventListener("scroll", hide, { passive: true });

// A point of a map opens its problem in the reading room of the same run; the chosen problem's points stand out.
document.addEventListener("click", (event) => {
  const circle = event.target.closest?.(".points circle");
  if (circle) open(circle);
});
function open(circle) {
  const item = itemOf(circle);
  const said = circle.closest(".map").querySelector(".told");
  said.textContent = item.textContent;
  const chapter = circle.closest(".chapter") ?? document;
  const shelf = all(".shelf", chapter).find((one) => one.dataset.id === item.dataset.id);
  if (!shelf) {
    if (chapter.querySelector(".shelf")) said.textContent += "\nThis problem is not among those in the reading room.";
    return;
  }
  const room = shelf.closest(".room");
  clear(room);
  choose(room, shelf.dataset.id);
  room.scrollIntoView({ behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
}
function light(room) {
  const chosen = all(".shelf", room).find((shelf) => !shelf.hidden)?.dataset.id;
  for (const map of all(".map", room.closest(".chapter") ?? document)) {
    const items = map.querySelector("ol").children;
    all("circle", map).forEach((c) => c.classList.toggle("lit", items[c.dataset.i].dataset.id === chosen));
  }
}

// Filters: a row stays if every chosen value is its own and it holds the searched text.
function matching(box) {
  const wanted = all("select[data-key]", box).filter((select) => select.value);
  const text = box.querySelector("input[type=search]")?.value.trim().toLowerCase() ?? "";
  return all("[data-row]", box).filter((row) => wanted.every((select) => {
    const value = row.dataset[select.dataset.key] ?? "";
    return select.hasAttribute("data-within") ? value.split(" ").includes(select.value) : value === select.value;
  }) && (!text || row.textContent.toLowerCase().includes(text)));
}
function apply(box) {
  const rows = all("[data-row]", box);
  const kept = matching(box);
  const shown = box.querySelector(".shown");
  if (shown) shown.textContent = kept.length < rows.length ? `${kept.length} of ${rows.length} shown` : "";
  if (box.matches(".room")) return offer(box, kept);
  const set = new Set(kept);
  rows.forEach((row) => { row.hidden = !set.has(row); });
}
function clear(box) {
  all("select[data-key]", box).forEach((select) => { select.value = ""; });
  const search = box.querySelector("input[type=search]");
  if (search) search.value = "";
  apply(box);
}

// The reading room: without scripts every problem is a line to open, with them one is chosen from a list.
function offer(room, kept) {
  const select = room.querySelector(".chooser select");
  const before = select.value;
  select.replaceChildren(...kept.map((shelf) => new Option(shelf.querySelector("summary").textContent, shelf.dataset.id)));
  choose(room, kept.some((shelf) => shelf.dataset.id === before) ? before : kept[0]?.dataset.id);
}
function choose(room, id) {
  const select = room.querySelector(".chooser select");
  if (id !== undefined) select.value = id;
  for (const shelf of all(".shelf", room)) {
    shelf.open = true;
    shelf.hidden = shelf.dataset.id !== id;
  }
  light(room);
}

for (const kind of ["input", "change"]) {
  document.addEventListener(kind, (event) => {
    const box = event.target.closest(".filtered");
    if (box && event.target.matches("input[type=search], select[data-key]")) apply(box);
    if (event.target.matches(".chooser select")) choose(box, event.target.value);
  });
}
document.addEventListener("click", (event) => {
  const button = event.target.closest?.("button[data-move]");
  if (!button) return;
  const room = button.closest(".room");
  const select = room.querySelector(".chooser select");
  const place = select.selectedIndex + Number(button.dataset.move);
  if (place >= 0 && place < select.options.length) choose(room, select.options[place].value);
});

function begin(root) {
  written.hidden = !document.querySelector(".formula");
  for (const box of all(".filtered", root.parentElement ?? root)) {
    const tools = box.querySelector(".tools");
    if (tools) tools.hidden = false;
    const chooser = box.querySelector(".chooser");
    if (chooser) {
      chooser.hidden = false;
      box.classList.add("chosen");
    }
    if (tools) apply(box);
  }
}
begin(document.body);
