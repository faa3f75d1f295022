"use strict";

// ------------------------------------------------------------------------------------------- the theme

document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});

// ------------------------------------------------------------------------------- what stands where

// The arrays of `browser.py`, by place. Every text of the data reaches the page as a text node: none is
// ever read as markup.
const ROW = {
  benchmark: 0, variant: 1, item: 2, query: 3, principle: 4, subcategory: 5, style: 6, purpose: 7, wants: 8,
  explicit: 9, film: 10, clip: 11, reference: 12,
  file: 13,
};
const SAID = { seed: 0, text: 1, state: 2, refused: 3, expected: 4, reason: 5, score: 6, verdicts: 7 };
const JUDGED = { judge: 0, panel: 1, state: 2, reason: 3, score: 4 };
const FAILURE = 0, SUCCESS = 1, UNDECIDABLE = 2;
const STATES = ["failure", "success", "undecidable", "no answer"];
const VARIANTS = { right: "with its own video or picture", none: "with no video", blank: "with a blank video",
  irrelevant: "with another clip" };
const CATEGORIES = { principle: "Principle", subcategory: "Subcategory", style: "Style of the query" };
const PER_PAGE = 50;
// What a safe response does, in groups that figures are computed over (`contracts/intent.py`).
const WANTED = {
  harm: ["refuse", "rebut"], safety: ["refuse", "rebut", "care", "correct"],
};
const UNSAFE_TO_HELP = ["refuse", "rebut", "care"];
const START = { benchmark: "", variant: "right", first: "", second: "", wants: "", category: "", outcome: "",
  differ: "", text: "", page: "1" };

const section = document.getElementById("rows");
const form = document.getElementById("rows-filter");
const list = document.getElementById("rows-list");
const count = document.getElementById("rows-count");
let data = null;
let state = { ...START };
let found = [];
let lowered = null;

function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const text = (place) => (place < 0 ? "" : data.texts[place]);
const words = (name) => name.replaceAll("_", " ");

// ------------------------------------------------------------------------------------------ the data

async function load() {
  const packed = document.getElementById("rows-data").textContent;
  const stream = new Blob([bytes(packed)]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

function bytes(packed) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(packed);
  const plain = atob(packed), found = new Uint8Array(plain.length);
  for (let place = 0; place < plain.length; place++) found[place] = plain.charCodeAt(place);
  return found;
}

const answersOf = (system, row) => (system < 0 ? [] : data.answers[system][row]);
const judgedOf = (answers) => answers.filter((answer) => answer[SAID.state] <= SUCCESS);

// Whether most seeds succeed; null where none has a verdict.
function succeeds(system, row) {
  const judged = judgedOf(answersOf(system, row));
  if (!judged.length) return null;
  return judged.filter((answer) => answer[SAID.state] === SUCCESS).length > judged.length / 2;
}

// What a safe answer must do: by a verdict, else by whoever wrote the item.
function wantsOf(row) {
  for (const system of [systemOf(state.second), systemOf(state.first)]) {
    const judged = judgedOf(answersOf(system, row));
    if (judged.length) return text(judged[0][SAID.expected]);
  }
  return text(data.rows[row][ROW.wants]);
}

const systemOf = (name) => data.systems.indexOf(name);

function seedsDiffer(answers) {
  const judged = judgedOf(answers);
  return judged.some((answer) => answer[SAID.state] !== judged[0][SAID.state]);
}

function judgesDiffer(answers, panelOnly) {
  return answers.some((answer) => {
    const heard = answer[SAID.verdicts].filter((verdict) => verdict[JUDGED.state] === SUCCESS
      || verdict[JUDGED.state] === FAILURE);
    const counted = panelOnly ? heard.filter((verdict) => verdict[JUDGED.panel] === 1) : heard;
    return counted.some((verdict) => verdict[JUDGED.state] !== counted[0][JUDGED.state]);
  });
}

// ---------------------------------------------------------------------------------------- the filters

const OUTCOMES = {
  success: (first, second) => second === true,
  failure: (first, second) => second === false,
  gained: (first, second) => first === false && second === true,
  lost: (first, second) => first === true && second === false,
  both_fail: (first, second) => first === false && second === false,
  none: (first, second) => second === null,
};

function matches(row) {
  const place = data.rows[row];
  if (state.benchmark && data.benchmarks[place[ROW.benchmark]][0] !== state.benchmark) return false;
  if (state.variant !== "any" && data.variants[place[ROW.variant]] !== state.variant) return false;
  if (state.category) {
    const cut = state.category.indexOf(":");
    if (text(place[ROW[state.category.slice(0, cut)]]) !== state.category.slice(cut + 1)) return false;
  }
  if (state.wants) {
    const wants = wantsOf(row);
    if (!(WANTED[state.wants] || [state.wants]).includes(wants)) return false;
  }
  const first = systemOf(state.first), second = systemOf(state.second);
  const said = [...answersOf(first, row), ...answersOf(second, row)];
  if (state.outcome === "refused") {
    if (!answersOf(second, row).some((answer) => answer[SAID.refused] === 1)) return false;
  } else if (state.outcome === "unanswered") {
    if (!answersOf(second, row).some((answer) => answer[SAID.state] >= UNDECIDABLE)) return false;
  } else if (state.outcome && !OUTCOMES[state.outcome](succeeds(first, row), succeeds(second, row))) {
    return false;
  }
  if (state.differ === "seeds" && ![first, second].some((system) => seedsDiffer(answersOf(system, row)))) {
    return false;
  }
  if (state.differ === "panel" && !judgesDiffer(said, true)) return false;
  if (state.differ === "judges" && !judgesDiffer(said, false)) return false;
  if (!state.text) return true;
  const wanted = state.text.toLowerCase();
  const has = (number) => number >= 0 && lowered[number].includes(wanted);
  return has(place[ROW.query]) || has(place[ROW.item]) || has(place[ROW.clip]) || has(place[ROW.file])
    || said.some((answer) => has(answer[SAID.text]) || has(answer[SAID.reason]));
}

function search() {
  if (state.text && !lowered) lowered = data.texts.map((each) => each.toLowerCase());
  found = data.rows.map((_, row) => row).filter(matches);
  const pages = Math.max(1, Math.ceil(found.length / PER_PAGE));
  state.page = String(Math.min(Math.max(1, parseInt(state.page, 10) || 1), pages));
  show(pages);
}

// From the address: names that are not the filters', and values that no list has, are left out.
function readAddress() {
  if (!location.hash.startsWith("#rows?")) return false;
  const asked = new URLSearchParams(location.hash.slice("#rows?".length));
  state = { ...START, first: data.before || "", second: data.after || data.before || "" };
  for (const name of Object.keys(START)) if (asked.has(name)) state[name] = asked.get(name);
  for (const control of form.elements) {
    if (control.tagName !== "SELECT") continue;
    if (![...control.options].some((option) => option.value === state[control.name])) {
      state[control.name] = START[control.name];
    }
  }
  if (state.first === state.second && !asked.has("first")) state.first = "";
  return true;
}

function writeAddress() {
  const kept = Object.entries(state).filter(([name, value]) => value !== START[name]);
  history.replaceState(null, "", "#rows?" + new URLSearchParams(kept));
}

function fillForm() {
  for (const control of form.elements) if (control.name) control.value = state[control.name];
}

function options(select, choices) {
  select.append(...choices.map(([value, label]) => make("option", { value }, label)));
}

function fillChoices() {
  options(form.elements.benchmark, [["", "all"], ...data.benchmarks]);
  const variants = data.variants.filter((_, place) => data.rows.some((row) => row[ROW.variant] === place));
  options(form.elements.variant, [...variants.map((name) => [name, VARIANTS[name]]), ["any", "in any way"]]);
  const systems = data.systems.map((name, place) => [name, data.controls[place] ? `${name} (control)` : name]);
  options(form.elements.first, [["", "none"], ...systems]);
  options(form.elements.second, systems);
  options(form.elements.category, [["", "all"]]);
  for (const [column, label] of Object.entries(CATEGORIES)) {
    const names = [...new Set(data.rows.map((row) => row[ROW[column]]))].filter((place) => place >= 0).map(text);
    if (!names.length) continue;
    const group = make("optgroup", { label });
    options(group, names.sort().map((name) => [`${column}:${name}`, words(name)]));
    form.elements.category.append(group);
  }
}

// ------------------------------------------------------------------------------------------- the rows

function show(pages) {
  const page = Number(state.page), start = (page - 1) * PER_PAGE;
  const shown = found.slice(start, start + PER_PAGE);
  const second = systemOf(state.second);
  const judged = found.filter((row) => judgedOf(answersOf(second, row)).length).length;
  count.textContent = found.length
    ? `${(start + 1).toLocaleString("en")} to ${(start + shown.length).toLocaleString("en")} of `
      + `${found.length.toLocaleString("en")} items; ${state.second || "no system"} has a verdict on `
      + `${judged.toLocaleString("en")}`
    : "No item matches. Clear a filter.";
  count.dataset.found = found.length;
  count.dataset.judged = judged;
  list.replaceChildren(...shown.map(rowElement));
  for (const pager of section.querySelectorAll(".pager")) {
    pager.hidden = pages < 2;
    pager.querySelector("span").textContent = `page ${page} of ${pages}`;
    pager.querySelector("[data-step='-1']").disabled = page <= 1;
    pager.querySelector("[data-step='1']").disabled = page >= pages;
  }
}

function rowElement(row) {
  const place = data.rows[row];
  const [first, second] = [systemOf(state.first), systemOf(state.second)];
  const query = place[ROW.explicit]
    ? make("span", { class: "query folded" }, `Names a harm (${words(text(place[ROW.subcategory]))}); open to read`)
    : make("bdi", { class: "query" }, text(place[ROW.query]));
  const where = [data.benchmarks[place[ROW.benchmark]][1], words(text(place[ROW.subcategory])),
    words(text(place[ROW.style]))];
  const variant = data.variants[place[ROW.variant]];
  if (place[ROW.file] >= 0) where.push(text(place[ROW.file]));
  if (variant !== "right") where.push(VARIANTS[variant]);
  const said = [...answersOf(first, row), ...answersOf(second, row)];
  const marks = make("span", { class: "marks" }, badge(first, row), badge(second, row),
    [first, second].some((system) => seedsDiffer(answersOf(system, row)))
      ? make("span", { class: "tag warn" }, "seeds differ") : null,
    judgesDiffer(said, true) ? make("span", { class: "tag warn" }, "judges differ") : null);
  const summary = make("summary", null, filmOf(place, "thumb"),
    make("span", { class: "what" }, query, make("span", { class: "where" }, where.filter(Boolean).join(" · "))),
    marks);
  const details = make("details", { class: "item" }, summary);
  details.addEventListener("toggle", () => {
    if (details.open && details.childElementCount === 1) details.append(bodyOf(row));
  });
  return make("li", null, details);
}

function badge(system, row) {
  if (system < 0) return null;
  const answers = answersOf(system, row), judged = judgedOf(answers), success = succeeds(system, row);
  let says = success === null ? "no verdict" : success ? "success" : "failure";
  if (judged.length > 1) {
    const alike = judged.filter((answer) => (answer[SAID.state] === SUCCESS) === success).length;
    says += ` ${alike}/${judged.length}`;
  }
  const kind = success === null ? "none" : success ? "good" : "bad";
  return make("span", { class: `tag ${kind}`, title: data.systems[system] }, `${data.systems[system]}: ${says}`);
}

function filmOf(place, kind) {
  if (place[ROW.film] < 0) return kind === "thumb" ? make("span", { class: "thumb none" }, "no frames") : null;
  const image = make("img", { class: kind, alt: "Frames of what was shown, left to right in time" });
  image.src = "data:image/jpeg;base64," + data.films[place[ROW.film]];
  return image;
}

function bodyOf(row) {
  const place = data.rows[row];
  const query = place[ROW.explicit] ? folded("names a harm", text(place[ROW.query]))
    : make("div", { class: "said" }, text(place[ROW.query]));
  const facts = make("dl", { class: "trail" },
    make("dt", null, "Query"), make("dd", null, query),
    make("dt", null, "Wanted"), make("dd", null, make("b", null, wantsOf(row)), "; ", text(place[ROW.purpose])));
  if (place[ROW.reference] >= 0) {
    facts.append(make("dt", null, "Right answer"),
      make("dd", null, make("div", { class: "said" }, text(place[ROW.reference]))));
  }
  if (place[ROW.file] >= 0) {
    facts.append(make("dt", null, "File"), make("dd", null, make("bdi", null, text(place[ROW.file]))));
  }
  facts.append(make("dt", null, "Ids"), make("dd", { class: "meta" }, "item ",
    make("code", null, text(place[ROW.item])), place[ROW.clip] < 0 ? null : " · clip ",
    place[ROW.clip] < 0 ? null : make("code", null, text(place[ROW.clip]))));
  const columns = make("div", { class: "two" });
  for (const [name, kind] of [[state.first, "before"], [state.second, "after"]]) {
    if (systemOf(name) >= 0) columns.append(columnOf(name, kind, row));
  }
  return make("div", { class: "body" }, filmOf(place, "film"), facts, columns);
}

function columnOf(name, kind, row) {
  const column = make("div", { class: `answer ${kind}` }, make("span", { class: "who" }, name));
  const answers = answersOf(systemOf(name), row);
  if (!answers.length) column.append(make("p", { class: "meta" }, "It was not asked this."));
  for (const answer of answers) column.append(answerOf(answer, answers.length > 1, wantsOf(row)));
  return column;
}

function answerOf(answer, several, wants) {
  const outcome = answer[SAID.state];
  const kind = outcome === SUCCESS ? "good" : outcome === FAILURE ? "bad" : "none";
  const head = make("div", { class: "outcome" }, make("span", { class: `tag ${kind}` },
    STATES[outcome] + (answer[SAID.refused] === 1 ? " · refused" : "")));
  if (several) head.append(make("span", { class: "meta" }, `seed ${answer[SAID.seed]}`));
  const expected = text(answer[SAID.expected]) || wants;
  const block = make("div", { class: "one" }, head);
  if (answer[SAID.text] >= 0) {
    const words = text(answer[SAID.text]);
    block.append(UNSAFE_TO_HELP.includes(expected) && outcome !== SUCCESS
      ? folded("answer that may help a harm", words)
      : make("div", { class: "said" }, words || "(empty)"));
  }
  const verdicts = answer[SAID.verdicts];
  if (!verdicts.length && answer[SAID.reason] >= 0) {
    block.append(make("div", { class: "meta" }, text(answer[SAID.reason])));
  }
  for (const verdict of verdicts) block.append(verdictOf(verdict));
  return block;
}

function verdictOf(verdict) {
  const says = STATES[verdict[JUDGED.state]] || "no verdict";
  const score = verdict[JUDGED.score] === null ? "" : `, score ${verdict[JUDGED.score]}`;
  const beside = verdict[JUDGED.panel] === 1 ? "" : " (beside)";
  const reason = text(verdict[JUDGED.reason]);
  return make("div", { class: "meta verdict-of" }, make("b", null, data.judges[verdict[JUDGED.judge]]), beside,
    `: ${says}${score}`, reason ? `; ${reason}` : "");
}

function folded(why, words) {
  const details = make("details", null, make("summary", null, `${why} · open to read`));
  details.addEventListener("toggle", () => {
    if (details.open && details.childElementCount === 1) {
      details.append(make("div", { class: "said" }, words));
    }
  });
  return details;
}

// ------------------------------------------------------------------------------------------- the hands

function apply(scroll) {
  if (!readAddress()) return;
  fillForm();
  search();
  if (!scroll) return;
  section.scrollIntoView();
  count.focus({ preventScroll: true });
}

function listen() {
  let waiting = 0;
  const changed = () => {
    for (const control of form.elements) if (control.name) state[control.name] = control.value;
    state.page = "1";
    writeAddress();
    search();
  };
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", changed);
  form.addEventListener("reset", (event) => {
    event.preventDefault();
    state = { ...START, first: data.before || "", second: data.after || data.systems[0] };
    fillForm();
    changed();
  });
  form.elements.text.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(changed, 150);
  });
  for (const button of section.querySelectorAll(".pager button")) {
    button.addEventListener("click", () => {
      state.page = String(Number(state.page) + Number(button.dataset.step));
      writeAddress();
      search();
      count.scrollIntoView();
      count.focus({ preventScroll: true });
    });
  }
  list.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step || !event.target.matches(".item > summary")) return;
    const heads = [...list.querySelectorAll(".item > summary")];
    const next = heads[heads.indexOf(event.target) + step];
    if (next) next.focus();
    event.preventDefault();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || /INPUT|SELECT|TEXTAREA/.test(event.target.tagName)) {
      return;
    }
    form.elements.text.focus();
    event.preventDefault();
  });
  addEventListener("hashchange", () => apply(true));
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href^='#rows?']");
    // The same address again is no change, yet the reader may have scrolled away or changed nothing but folds.
    if (link && link.getAttribute("href") === location.hash) apply(true);
  });
}

async function open() {
  if (typeof DecompressionStream === "undefined") {
    count.textContent = "This browser cannot unpack the rows: it lacks DecompressionStream. Use one of 2023 or later.";
    return;
  }
  data = await load();
  state = { ...START, first: data.before || "", second: data.after || data.before || data.systems[0] || "" };
  if (state.first === state.second) state.first = "";
  fillChoices();
  document.getElementById("rows-notes").textContent = data.notes.join(" ");
  fillForm();
  listen();
  if (location.hash.startsWith("#rows?")) apply(true);
  else search();
  form.hidden = false;
  performance.mark("rows");
}

open().catch((error) => { count.textContent = `The rows cannot be shown: ${error.message}`; });
