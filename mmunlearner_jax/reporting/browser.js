// The browser of answers: unpacks the rows that the page holds, filters them and shows them.
// Answers are untrusted text: they only ever become text nodes. Nothing is requested from a host.
"use strict";

(() => {
  const PAGE = 50; // rows shown at once
  const FILTERS = ["split", "asked", "task", "person", "change"];
  const MARKS = {
    "right to wrong": "✓→✗", "wrong to right": "✗→✓", "stayed right": "✓→✓", "stayed wrong": "✗→✗",
  };
  const COLUMNS = [
    ["id", (row) => row.id], ["split", (row) => row.split], ["asked", (row) => word("asked", row.asked)],
    ["task", (row) => word("task", row.task)], ["person", (row) => row.person],
    ["question", (row) => row.question], ["true answer", (row) => row.answer],
    ["change", (row) => row.change],
    ...["before", "after"].flatMap((when) => [
      [when, (row) => row[when].answer], [`${when}: whole response`, (row) => row[when].response],
      [`${when}: right`, (row) => row[when].right],
    ]),
    ["options", (row) => row.options.join(" | ")],
    ...["before", "after"].map((when) => [
      `${when}: probabilities`, (row) => (row[when].probabilities || []).join(" | "),
    ]),
  ];

  const at = (id) => document.getElementById(id);
  const form = at("filters"), list = at("answer-list"), count = at("answer-count"), more = at("more");
  let rows = [], found = [], shown = 0, words = {};

  const word = (field, value) => (words[field] || {})[value] || value;

  // An element with text and children; text is never parsed as HTML.
  function element(name, attributes, ...inside) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...inside);
    return made;
  }

  async function unpacked(text) {
    const bytes = Uint8Array.from(atob(text.trim()), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return JSON.parse(await new Response(stream).text());
  }

  function haystack(row) {
    row.text ||= [row.id, row.person, row.question, row.answer, row.before.response,
      row.after.response, row.before.answer, row.after.answer].join("\n").toLowerCase();
    return row.text;
  }

  function matching(state) {
    const wanted = FILTERS.filter((field) => state.get(field));
    const terms = (state.get("search") || "").toLowerCase().split(/\s+/).filter(Boolean);
    return rows.filter((row) => wanted.every((field) => row[field] === state.get(field))
      && terms.every((term) => haystack(row).includes(term)));
  }

  function state() {
    const kept = [...new FormData(form)].filter(([, value]) => value);
    return new URLSearchParams(kept);
  }

  function clear() {
    for (const field of [...FILTERS, "search"]) form.elements.namedItem(field).value = "";
  }

  function responses(row) {
    const lines = [["True", row.answer, null]];
    for (const when of ["before", "after"]) {
      const name = when === "before" ? "Before" : "After";
      lines.push([name, row[when].answer || "(nothing)", row[when].right]);
      if (row[when].response !== row[when].answer) {
        lines.push([`${name}, in own words`, row[when].response || "(nothing)", null]);
      }
    }
    return element("dl", {}, ...lines.flatMap(([name, text, right]) => [
      element("dt", {}, name),
      element("dd", {}, text, ...(right === null ? [] : [mark(right)])),
    ]));
  }

  function mark(right) {
    const name = right ? "right" : "wrong";
    return element("span", { class: `mark ${right ? "met" : "missed"}` }, ` ${right ? "✓" : "✗"} ${name}`);
  }

  function options(row) {
    if (!row.before.probabilities && !row.after.probabilities) return [];
    const cell = (probabilities, n) => {
      if (!probabilities) return element("td", {}, "");
      const share = 100 * probabilities[n];
      const bar = element("i", { style: `width:${share}%` });
      return element("td", {}, element("span", { class: "chance-bar", "aria-hidden": "true" }, bar),
        ` ${share.toFixed(share < 10 ? 1 : 0)} %`);
    };
    const lines = row.options.map((option, n) => element("tr", {},
      element("th", { scope: "row" }, option, ...(option === row.answer ? [" (true)"] : [])),
      cell(row.before.probabilities, n), cell(row.after.probabilities, n)));
    const head = ["Option", "Before", "After"].map((text) => element("th", { scope: "col" }, text));
    return [element("table", { class: "options" },
      element("caption", {}, "Probability among the options"),
      element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...lines))];
  }

  function item(row) {
    const about = [row.person, row.split, word("asked", row.asked), word("task", row.task)];
    const summary = element("summary", {},
      element("span", { class: "way", "aria-hidden": "true" }, MARKS[row.change]),
      element("span", { class: "visually-hidden" }, `${row.change}: `),
      element("span", { class: "asked-text" }, row.question),
      element("span", { class: "about" }, about.filter(Boolean).join(" · ")),
      element("span", { class: "went" }, `${row.before.answer || "(nothing)"} → ${row.after.answer || "(nothing)"}`));
    const made = element("details", { id: `row-${row.id}`, class: "answer" }, summary);
    made.addEventListener("toggle", () => {
      if (!made.open || made.children.length > 1) return;
      made.append(element("div", { class: "inside" }, responses(row), ...options(row),
        element("p", { class: "small" }, element("a", { href: `#row=${row.id}` }, `Link to answer ${row.id}`))));
    });
    return made;
  }

  function showUntil(number) {
    list.append(...found.slice(shown, number).map(item));
    shown = Math.min(Math.max(shown, number), found.length);
    more.hidden = shown >= found.length;
    const whole = rows.length.toLocaleString("en");
    count.textContent = `${found.length.toLocaleString("en")} of ${whole} answers`
      + (shown < found.length ? `, the first ${shown} shown` : "");
  }

  function refresh(until = PAGE) {
    found = matching(state());
    list.replaceChildren();
    shown = 0;
    showUntil(until);
  }

  function goTo(row) {
    if (!matching(state()).includes(row)) clear();
    const place = matching(state()).indexOf(row);
    refresh(PAGE * Math.ceil((place + 1) / PAGE));
    const opened = at(`row-${row.id}`);
    opened.open = true;
    opened.scrollIntoView({ block: "center" });
    opened.querySelector("summary").focus({ preventScroll: true });
  }

  // The fragment is `#row=ID`, or filters as `#split=forget&change=right+to+wrong`.
  function follow() {
    const given = new URLSearchParams(location.hash.slice(1));
    const row = rows.find((it) => it.id === given.get("row"));
    if (row) return goTo(row);
    if (![...FILTERS, "search"].some((field) => given.has(field))) return;
    clear();
    for (const [field, value] of given) {
      const control = form.elements.namedItem(field);
      if (control && (field === "search" || rows.some((it) => it[field] === value))) control.value = value;
    }
    refresh();
    at("answers").scrollIntoView();
  }

  function fill() {
    for (const field of FILTERS) {
      const values = [...new Set(rows.map((row) => row[field]))].filter(Boolean);
      if (field === "person") values.sort((a, b) => a.localeCompare(b));
      const select = form.elements.namedItem(field);
      for (const value of values) select.append(element("option", { value }, word(field, value)));
    }
  }

  function download() {
    const quoted = (value) => `"${String(value).replaceAll('"', '""')}"`;
    const lines = [COLUMNS.map(([name]) => name), ...found.map((row) => COLUMNS.map(([, of]) => of(row)))];
    const text = lines.map((line) => line.map(quoted).join(",")).join("\r\n");
    const url = URL.createObjectURL(new Blob(["\ufeff", text, "\r\n"], { type: "text/csv" }));
    const link = element("a", { href: url, download: "answers.csv" });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  }

  async function start() {
    words = JSON.parse(at("answer-words").textContent);
    rows = await unpacked(at("answer-data").textContent);
    fill();
    form.addEventListener("input", () => {
      refresh();
      history.replaceState(null, "", `#${state() || "answers"}`);
    });
    form.addEventListener("submit", (event) => event.preventDefault());
    at("clear").addEventListener("click", () => {
      clear();
      refresh();
      history.replaceState(null, "", "#answers");
    });
    more.addEventListener("click", () => showUntil(shown + PAGE));
    at("download").addEventListener("click", download);
    addEventListener("hashchange", follow);
    refresh();
    document.documentElement.classList.add("with-scripts"); // shows the browser in place of the table
    follow();
  }

  if (globalThis.DecompressionStream) start();
})();
