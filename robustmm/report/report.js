// Sorting by column; without it the table is as complete. Empty values stay last.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    const words = !head.classList.contains("num");
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") === (words ? "ascending" : "descending") ? !words : words;
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const key = row => row.cells[column].dataset.value ?? row.cells[column].textContent;
      body.append(...[...body.rows].sort((a, b) => {
        const x = key(a), y = key(b);
        if (x === "" || y === "") return (x === "") - (y === "");
        const order = words ? x.localeCompare(y, undefined, { numeric: true }) : x - y;
        return up ? order : -order;
      }));
    });
  });
}
// The list of sections shows where the reader is.
const entries = new Map([...document.querySelectorAll("nav a")].map(link => [link.hash.slice(1), link]));
const seen = new Set();
const watcher = new IntersectionObserver(changes => {
  for (const { target, isIntersecting } of changes) seen[isIntersecting ? "add" : "delete"](target.id);
  const here = [...entries.keys()].find(name => seen.has(name));
  for (const [name, link] of entries) {
    if (name !== here) { link.removeAttribute("aria-current"); continue; }
    if (link.hasAttribute("aria-current")) continue;
    link.setAttribute("aria-current", "true");
    const list = link.closest("ul");
    const middle = link.offsetLeft - list.offsetLeft - (list.clientWidth - link.offsetWidth) / 2;
    list.scrollTo({ left: middle });
  }
}, { rootMargin: "-15% 0px -70% 0px" });
for (const section of document.querySelectorAll("main > section")) watcher.observe(section);
// Tables that are folded on the screen are printed.
addEventListener("beforeprint", () => document.querySelectorAll("details.table").forEach(one => { one.open = true; }));
