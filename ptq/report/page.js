(() => {
  const table = document.getElementById("layers");
  if (!table) return;
  const body = table.tBodies[0], rows = [...body.rows], heads = [...table.tHead.rows[0].cells];
  const value = (row, i) => {
    const text = row.cells[i].textContent.trim();
    return i === 1 || i === 2 ? text : text === "–" ? NaN : Number(text);
  };
  const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b) : a - b);
  heads.forEach((head, i) => {
    // not a button: Chromium does not repeat a head with buttons in it on every sheet of paper
    head.tabIndex = 0;
    head.addEventListener("keydown", (event) => { if (event.key === "Enter") head.click(); });
    head.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const known = rows.filter((row) => !Number.isNaN(value(row, i)));
      known.sort((a, b) => (down ? -1 : 1) * compare(value(a, i), value(b, i)));
      body.append(...known, ...rows.filter((row) => Number.isNaN(value(row, i))));
    });
  });
  const filter = document.createElement("input");
  filter.type = "search";
  filter.className = "filter";
  filter.placeholder = "Show only layers with this text";
  filter.setAttribute("aria-label", filter.placeholder);
  filter.addEventListener("input", () => {
    const wanted = filter.value.toLowerCase();
    rows.forEach((row) => { row.hidden = !row.textContent.toLowerCase().includes(wanted); });
  });
  table.before(filter);
})();
