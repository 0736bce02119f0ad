// What pages do beyond links and forms: theme, sorting, filtering, dialogs, copying, the booked-time slider, live figures.
const theme = document.querySelector("[data-theme-switch]");
const root = document.documentElement;
const nameTheme = () => { if (theme) { theme.textContent = root.dataset.theme === "dark" ? "Light theme" : "Dark theme"; } };
theme?.addEventListener("click", () => {
  const next = root.dataset.theme === "dark" ? "light" : "dark";
  localStorage.setItem("theme", next);
  root.dataset.theme = next;
  nameTheme();
  window.dispatchEvent(new Event("themechange"));
});
nameTheme();

// Tables: sort by a column's data-value (else its text); filter by what is typed.
function keyOf(row, column) {
  const cell = row.cells[column];
  const raw = cell.dataset.value ?? cell.textContent.trim();
  const number = Number(raw);
  return raw !== "" && Number.isFinite(number) ? number : raw.toLowerCase();
}
function sortBy(table, header) {
  const column = header.cellIndex;
  const descending = header.getAttribute("aria-sort") === "ascending";
  table.querySelectorAll("thead th[aria-sort]").forEach((other) => other.setAttribute("aria-sort", "none"));
  header.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  rows.sort((one, other) => {
    const left = keyOf(one, column), right = keyOf(other, column);
    if (typeof left === typeof right) { return left < right ? -1 : left > right ? 1 : 0; }
    return typeof left === "number" ? -1 : 1;
  });
  if (descending) { rows.reverse(); }
  body.append(...rows);
}
document.querySelectorAll("table[data-sortable]").forEach((table) => {
  table.querySelectorAll("thead th").forEach((header) => {
    if (!header.textContent.trim() || header.dataset.fixed !== undefined) { return; }
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    header.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => sortBy(table, header));
  });
});
function filterBy(input, table) {
  const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const row of table.tBodies[0].rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every((word) => text.includes(word));
  }
}
document.querySelectorAll("[data-filter-for]").forEach((input) => {
  const table = document.getElementById(input.dataset.filterFor);
  if (!table) { input.closest("label").hidden = true; return; }
  input.addEventListener("input", () => filterBy(input, table));
});

// Files of small tables: what stands in them, exact where a cell has a data-value; large ones are made by the server.
const harmless = (text) => (/^[=+@\t\r-]/.test(text) && !/^-?[0-9.]+$/.test(text) ? `'${text}` : text);
const quoted = (text) => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
const cellText = (cell) => quoted(harmless((cell.dataset.value ?? cell.innerText).trim().replace(/\s+/g, " ")));
function save(table) {
  const rows = Array.from(table.rows).filter((row) => !row.hidden);
  const text = rows.map((row) => Array.from(row.cells).map(cellText).join(",")).join("\r\n") + "\r\n";
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = `${table.dataset.csv}.csv`;
  link.click();
  URL.revokeObjectURL(link.href);
}
const LONG = 10; // rows from which a small table has a filter of its own
document.querySelectorAll("table[data-csv]").forEach((table) => {
  const holder = table.closest(".table-wrap");
  const before = holder.previousElementSibling;
  const actions = document.createElement("span");
  actions.className = before?.tagName === "HEADER" ? "actions" : "actions table-tools";
  if (table.tBodies[0].rows.length > LONG && !table.id) {
    const input = document.createElement("input");
    input.type = "search";
    input.placeholder = "Filter these rows";
    input.setAttribute("aria-label", input.placeholder);
    input.addEventListener("input", () => filterBy(input, table));
    actions.append(input);
  }
  const button = document.createElement("button");
  button.type = "button";
  button.className = "button small";
  button.textContent = "CSV";
  button.setAttribute("aria-label", `Save as CSV: ${table.dataset.csv}`);
  button.addEventListener("click", () => save(table));
  actions.append(...(before?.tagName === "HEADER" ? before.querySelectorAll(":scope > a.button") : []), button);
  if (before?.tagName === "HEADER") { before.append(actions); } else { holder.before(actions); }
});

// Dialogs: the browser's own, which keep the focus inside and close with Escape.
document.querySelectorAll("[data-dialog]").forEach((button) => {
  button.addEventListener("click", () => document.getElementById(button.dataset.dialog)?.showModal());
});
document.querySelectorAll("dialog [data-close]").forEach((button) => {
  button.addEventListener("click", () => button.closest("dialog").close());
});
document.querySelectorAll("[data-check-all]").forEach((box) => {
  box.addEventListener("change", () => {
    document.querySelectorAll(`input[name="${box.dataset.checkAll}"]`).forEach((one) => { if (!one.closest("tr").hidden) { one.checked = box.checked; } });
  });
});
document.querySelectorAll("[data-copy]").forEach((button) => {
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(button.dataset.copy);
    button.textContent = "Copied";
  });
});
document.querySelectorAll("form").forEach((form) => {
  form.addEventListener("submit", () => { document.querySelector("main")?.setAttribute("aria-busy", "true"); });
});
window.addEventListener("pageshow", () => document.querySelector("main")?.removeAttribute("aria-busy"));
document.querySelectorAll("[data-submit]").forEach((field) => {
  field.addEventListener("change", () => {
    for (const name of (field.dataset.clears ?? "").split(" ").filter(Boolean)) { field.form.elements[name].value = ""; }
    field.form.requestSubmit();
  });
});

// The booked-time slider: says its moment while it moves, asks the server when it is let go.
document.querySelectorAll("input[data-hours-from]").forEach((slider) => {
  const shown = document.getElementById(slider.dataset.shows);
  const target = document.getElementById(slider.dataset.sets);
  const moment = () => new Date((Number(slider.dataset.hoursFrom) + Number(slider.value)) * 3600 * 1000);
  const last = () => slider.value === slider.max;
  slider.addEventListener("input", () => {
    const text = last() ? "now" : `${moment().toISOString().slice(0, 16).replace("T", " ")} UTC`;
    shown.textContent = text;
    slider.setAttribute("aria-valuetext", text);
  });
  slider.addEventListener("change", () => {
    target.value = last() ? "" : moment().toISOString();
    slider.form.requestSubmit();
  });
});

// Live figures: the server sends {"figures": {name: text}, "states": {name: class}}, or {"title": text} in trouble.
const source = document.body.dataset.live;
if (source) {
  const light = document.querySelector("[data-live-light]");
  const FIRST_MS = 5000, LONGEST_MS = 60000;
  let heard = 0, waitMs = FIRST_MS;
  const say = (text, stale) => { if (light) { light.textContent = text; light.classList.toggle("stale", stale); } };
  const listen = () => {
    const stream = new EventSource(source);
    stream.addEventListener("figures", (event) => {
      heard = Date.now();
      waitMs = FIRST_MS;
      const message = JSON.parse(event.data);
      for (const [name, text] of Object.entries(message.figures || {})) {
        document.querySelectorAll(`[data-figure="${CSS.escape(name)}"]`).forEach((one) => { one.textContent = text; });
      }
      for (const [name, state] of Object.entries(message.states || {})) {
        document.querySelectorAll(`[data-state="${CSS.escape(name)}"]`).forEach((one) => { one.classList.remove("good", "warn", "bad"); if (state) { one.classList.add(state); } });
      }
      say("Live", false);
    });
    stream.addEventListener("trouble", (event) => { heard = 0; say(`Not live: ${JSON.parse(event.data).title}`, true); });
    stream.addEventListener("error", () => {
      if (stream.readyState !== EventSource.CLOSED) { say("Not live: reconnecting", true); return; }
      // After any answer but 200 (too many viewers, a ledger or proxy that was away) a browser never asks again by itself.
      say("Not live: trying again", true);
      setTimeout(listen, waitMs * (0.5 + Math.random()));
      waitMs = Math.min(waitMs * 2, LONGEST_MS);
    });
  };
  listen();
  setInterval(() => { if (heard && Date.now() - heard > 15000) { say(`Last figures ${Math.round((Date.now() - heard) / 1000)} s ago`, true); } }, 5000);
}
