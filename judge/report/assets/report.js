"use strict";
// The page's script: language and theme, charts when they come into view, sorting, and the dialogues.
// Text from data is only ever written by textContent (or by plotly from strings that were escaped for it).
const DATA = JSON.parse(document.getElementById("data").textContent);
const root = document.documentElement;
const SVG = "http://www.w3.org/2000/svg";
const AT_A_TIME = 30;
let language = DATA.language;
let shown = AT_A_TIME;

const text = (key, facts = {}) => DATA.texts[language][key].replace(/\{(\w+)\}/g, (_, name) => facts[name]);
const byId = (id) => document.getElementById(id);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const fixed = (value, places = 2) => (value === null || value === undefined ? "–" : value.toFixed(places));
const mean = (values) => {
  const known = values.filter((value) => value !== null && value !== undefined);
  return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
};

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function drawing(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// Charts

function colour(name) {
  const look = (one) => getComputedStyle(root).getPropertyValue(`--${one}`).trim();
  const between = name.match(/^level-(\d)(\.\d+)$/);
  if (!between) return look(name);
  // Of more or fewer levels than the theme has colours for, one between two of them.
  const channels = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  const [low, high] = [0, 1].map((more) => channels(look(`level-${Number(between[1]) + more}`)));
  return `rgb(${low.map((one, place) => Math.round(one + (high[place] - one) * Number(between[2]))).join(", ")})`;
}

function filled(value) {
  if (Array.isArray(value)) return value.map(filled);
  if (value === null || typeof value !== "object") return value;
  if ("colour" in value) return colour(value.colour);
  if ("facts" in value) return text(value.text, value.facts);
  return Object.fromEntries(Object.entries(value).map(([key, part]) => [key, filled(part)]));
}

function axis(given, style) {
  const title = given.title && { standoff: 12, font: { size: style.size }, ...given.title };
  return { gridcolor: style.line, linecolor: style.axis, zerolinecolor: style.axis, automargin: true, fixedrange: true, ticklabelstandoff: 4, ...given, title };
}

function narrowed(data, layout) {
  for (const trace of data) {
    if (trace.type !== "heatmap") continue;
    Object.assign(trace, { showscale: false, texttemplate: "%{z:.1f}", textfont: { ...trace.textfont, size: 9 } });
    layout.xaxis.tickangle = -60;
    layout.yaxis.ticktext = layout.yaxis.ticktext?.map((name) => (name.length > 10 ? `${name.slice(0, 9)}…` : name));
  }
}

function draw(plot) {
  const figure = DATA.figures[plot.dataset.figure];
  const chosen = document.querySelector(`select[data-figure="${plot.dataset.figure}"]`);
  const { data, layout } = filled(figure.plots[chosen ? chosen.value : Object.keys(figure.plots)[0]]);
  const css = getComputedStyle(root);
  const style = Object.fromEntries(["ink", "line", "axis", "raised"].map((name) => [name, css.getPropertyValue(`--${name}`).trim()]));
  const narrow = plot.clientWidth < 560;
  style.size = narrow ? 11 : 13;
  if (narrow) narrowed(data, layout);
  for (const trace of data) if (trace.theta) trace.theta = trace.theta.map((metric) => metric.replace(" ", "<br>"));
  const polar = layout.polar && {
    bgcolor: "rgba(0,0,0,0)",
    radialaxis: { gridcolor: style.line, linecolor: style.axis, ...layout.polar.radialaxis },
    angularaxis: { gridcolor: style.line, linecolor: style.axis, ...layout.polar.angularaxis },
  };
  const full = {
    ...layout,
    ...(polar ? { polar } : { xaxis: axis(layout.xaxis ?? {}, style), yaxis: axis(layout.yaxis ?? {}, style) }),
    font: { family: css.getPropertyValue("--sans"), size: style.size, color: style.ink },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    margin: polar ? { l: 70, r: 70, t: 40, b: 20 } : { l: 10, r: narrow ? 5 : 20, t: 20, b: 40 },
    legend: { orientation: "h", y: -0.15, yanchor: "top", x: 0, itemwidth: 30, ...layout.legend },
    hoverlabel: { bgcolor: style.raised, bordercolor: style.axis, font: { color: style.ink } },
    dragmode: false,
  };
  const first = !plot.dataset.drawn;
  plot.dataset.drawn = "yes";
  Plotly.react(plot, data, full, { displayModeBar: false, responsive: true, scrollZoom: false, doubleClick: false });
  if (first && figure.filters) plot.on("plotly_click", (event) => read(figure.filters[0], figure.filters[1][event.points[0].pointNumber[0]]));
}

const redraw = () => all(".plot[data-drawn]").forEach(draw);
const seen = new IntersectionObserver(
  (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => { seen.unobserve(entry.target); draw(entry.target); }),
  { rootMargin: "300px" },
);

// Tables

function sort(button) {
  const head = button.closest("th");
  const rising = head.getAttribute("aria-sort") ? head.getAttribute("aria-sort") !== "ascending" : !head.classList.contains("number");
  all("[aria-sort]", head.parentNode).forEach((other) => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", rising ? "ascending" : "descending");
  for (const body of head.closest("table").tBodies) {
    const rows = [...body.rows].map((row) => [value(row.cells[head.cellIndex]), row]);
    rows.sort(([a], [b]) => compared(a, b, rising));
    body.append(...rows.map(([, row]) => row));
  }
}

function value(cell) {
  if (!("value" in cell.dataset)) return cell.textContent.trim();
  return cell.dataset.value === "" ? null : Number(cell.dataset.value);
}

function compared(a, b, rising) {
  if (a === null || b === null) return (a === null) - (b === null); // what is missing comes last either way
  const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "zh");
  return rising ? order : -order;
}

// Dialogues

const filters = byId("filters").elements;
const ORDERS = ["run", "low", "high", "uncertain", "disputed"];
const FLAGS = ["suspicious", "missing", "rated", "explained", "worst", "best", "uncertain", "disputed", "sample"];

function measured(dialogue) {
  const spreads = DATA.metrics.map((_, place) => {
    const chances = dialogue.p?.[place];
    if (!chances) return null;
    const levels = DATA.levels[place];
    const centre = chances.reduce((sum, chance, at) => sum + chance * levels[at], 0);
    return Math.sqrt(Math.max(chances.reduce((sum, chance, at) => sum + chance * (levels[at] - centre) ** 2, 0), 0));
  });
  const people = DATA.metrics.map((_, place) => mean((dialogue.ratings?.[place] ?? []).map(([, rating]) => rating)));
  const score = DATA.metrics.map((_, place) => dialogue.score?.[place] ?? null);
  const apart = people.map((one, place) => (one === null || score[place] === null ? null : Math.abs(one - score[place])));
  return { dialogue, score, spreads, people, apart };
}

const dialogues = DATA.dialogues.map(measured);
const ofMetric = (values) => (filters.metric.value === "" ? mean(values) : values[DATA.metrics.indexOf(filters.metric.value)]);

function has(dialogue, flag) {
  if (flag === "suspicious") return Boolean(dialogue.suspicious);
  if (flag === "missing") return Boolean(dialogue.error);
  if (flag === "rated") return Boolean(dialogue.ratings);
  if (flag === "explained") return Boolean(dialogue.rationale);
  return (dialogue.why ?? []).includes(flag);
}

function matching() {
  const wanted = ["source", "character", "scenario"].filter((name) => filters[name].value !== "");
  const found = dialogues.filter(
    ({ dialogue }) => wanted.every((name) => dialogue[name] === filters[name].value) && (filters.flag.value === "" || has(dialogue, filters.flag.value)),
  );
  const keys = { low: ["score", true], high: ["score", false], uncertain: ["spreads", false], disputed: ["apart", false] };
  const order = keys[filters.order.value];
  return order ? found.sort((a, b) => compared(ofMetric(a[order[0]]), ofMetric(b[order[0]]), order[1])) : found;
}

function list() {
  const found = matching();
  byId("count").textContent = text("found", { count: found.length });
  byId("list").replaceChildren(...found.slice(0, shown).map(card));
  byId("more").hidden = found.length <= shown;
}

function card(one) {
  const { dialogue } = one;
  const button = element("button", { type: "button", class: "open", "aria-expanded": "false" });
  const who = element("span", { class: "who" }, `${dialogue.source} · ${dialogue.character} · ${dialogue.scenario}`);
  const facts = [text("spread.of", { sd: fixed(ofMetric(one.spreads)) })];
  if (ofMetric(one.people) !== null) facts.push(text("people.of", { mean: fixed(ofMetric(one.people)) }));
  if (dialogue.suspicious) facts.push(text("why.suspicious", { patterns: dialogue.suspicious }));
  if (dialogue.why) facts.push(...dialogue.why.filter((reason) => !["suspicious", "missing", "explained"].includes(reason)).map((reason) => text(`flag.${reason}`)));
  button.append(who, element("span", { class: "score" }, fixed(ofMetric(one.score))), element("span", { class: "more" }, facts.join(" · ")));
  const made = element("article", { class: "dialogue" }, element("h3", {}, button));
  button.addEventListener("click", () => {
    const open = button.getAttribute("aria-expanded") === "true";
    button.setAttribute("aria-expanded", String(!open));
    if (open) made.lastChild.remove();
    else made.append(inside(one));
  });
  return made;
}

function inside(one) {
  const said = element("div");
  if (one.dialogue.profile) said.append(turn("user", text("profile"), one.dialogue.profile));
  for (const [user, character] of one.dialogue.turns ?? []) {
    if (user !== null) said.append(turn("user", text("user"), user)); // null: that side said nothing there
    if (character !== null) said.append(turn("character", one.dialogue.character, character));
  }
  if (!one.dialogue.turns) said.append(element("p", {}, text("no.text")));
  const rated = element("div", {}, levelsTable(one));
  const reasons = Object.entries(one.dialogue.rationale ?? {});
  if (reasons.length) rated.append(element("p", { class: "rationale" }, text("rationale.note")));
  for (const [dimension, reason] of reasons) {
    rated.append(element("p", { class: "rationale" }, element("b", {}, text("rationale.of", { dimension: text(`metric.${dimension}`) })), reason));
  }
  return element("div", { class: "inside" }, said, rated);
}

const turn = (kind, who, words) => element("p", { class: `turn ${kind}` }, element("b", {}, who), words);

function levelsTable(one) {
  const heads = ["metric", "probabilities", "score", "notes"].map((key) => element("th", { scope: "col" }, key === "notes" ? element("span", { class: "hidden" }, text(key)) : text(key)));
  const rows = DATA.metrics.map((metric, place) => {
    const chances = one.dialogue.p?.[place];
    const row = element("tr", metric === filters.metric.value ? { class: "chosen" } : {}, element("th", { scope: "row" }, text(`metric.${metric}`)));
    row.append(element("td", {}, chances ? bars(chances, DATA.levels[place]) : one.dialogue.error?.[place] ?? "–"), element("td", { class: "number" }, fixed(one.score[place])));
    const notes = [];
    if (one.dialogue.calibrated?.[place] !== undefined) notes.push(text("calibrated.of", { score: fixed(one.dialogue.calibrated[place]) }));
    for (const [annotator, rating] of one.dialogue.ratings?.[place] ?? []) notes.push(`${annotator} ${rating}`);
    row.append(element("td", { class: "data" }, notes.join(" · ")));
    return row;
  });
  return element("table", { class: "levels" }, element("thead", {}, element("tr", {}, ...heads)), element("tbody", {}, ...rows));
}

function bars(chances, levels) {
  const ends = `${levels[0]}–${levels.at(-1)}`, width = 11 * chances.length;
  const label = text("distribution.alt", { ends, levels: chances.map((chance) => `${Math.round(chance * 100)}%`).join(", ") });
  const made = drawing("svg", { viewBox: `0 0 ${width} 16`, preserveAspectRatio: "xMinYMid", role: "img", "aria-label": label });
  chances.forEach((chance, at) => made.append(drawing("rect", { x: at * 11 + 1, y: 15 - 14 * chance, width: 9, height: 14 * chance })));
  made.append(drawing("line", { x1: 0, x2: width, y1: 15.5, y2: 15.5 }));
  return made;
}

function fill() {
  const values = (name) => [...new Set(DATA.dialogues.map((dialogue) => dialogue[name]))].sort((a, b) => a.localeCompare(b, "zh", { numeric: true }));
  const flags = FLAGS.filter((flag) => DATA.dialogues.some((dialogue) => has(dialogue, flag)));
  const orders = ORDERS.filter((order) => order !== "disputed" || DATA.dialogues.some((dialogue) => dialogue.ratings));
  const any = ["", text("any")];
  const options = {
    // Metrics on different scales have no mean.
    metric: [...(DATA.mixed ? [] : [["", text("overall.mean")]]), ...DATA.metrics.map((metric) => [metric, text(`metric.${metric}`)])],
    flag: [any, ...flags.map((flag) => [flag, text(`flag.${flag}`)])],
    order: orders.map((order) => [order, text(`order.${order}`)]),
  };
  for (const name of ["source", "character", "scenario"]) options[name] = [any, ...values(name).map((one) => [one, one])];
  for (const [name, choices] of Object.entries(options)) {
    const before = filters[name].value;
    filters[name].replaceChildren(...choices.map(([key, words]) => element("option", { value: key }, words)));
    filters[name].value = choices.some(([key]) => key === before) ? before : choices[0][0];
  }
}

function read(name, wanted, metric) {
  for (const other of ["source", "character", "scenario", "flag"]) filters[other].value = "";
  filters[name].value = wanted;
  if (metric && DATA.metrics.includes(metric)) filters.metric.value = metric;
  shown = AT_A_TIME;
  list();
  byId("dialogues").scrollIntoView();
  filters[name].focus({ preventScroll: true });
}

// Language and theme

function speak() {
  root.lang = language === "zh" ? "zh-CN" : "en";
  for (const spoken of all(`[data-${language}]`)) spoken.textContent = spoken.getAttribute(`data-${language}`);
  for (const named of all(`[data-label-${language}]`)) named.setAttribute("aria-label", named.getAttribute(`data-label-${language}`));
  fill();
  list();
  redraw();
}

function setTheme(theme) {
  root.dataset.theme = theme;
  redraw();
}

const dark = matchMedia("(prefers-color-scheme: dark)");
setTheme(dark.matches ? "dark" : "light");
dark.addEventListener("change", () => setTheme(dark.matches ? "dark" : "light"));
byId("theme").addEventListener("click", () => setTheme(root.dataset.theme === "dark" ? "light" : "dark"));
byId("language").addEventListener("click", () => { language = language === "zh" ? "en" : "zh"; speak(); });
byId("filters").addEventListener("change", () => { shown = AT_A_TIME; list(); });
byId("filters").addEventListener("submit", (event) => event.preventDefault());
byId("more").addEventListener("click", () => { shown += AT_A_TIME; list(); });
byId("board-metric")?.addEventListener("change", (event) => {
  for (const body of byId("board").tBodies) body.hidden = body.dataset.metric !== event.target.value;
});
all(".sort").forEach((button) => button.addEventListener("click", () => sort(button)));
all(".read").forEach((button) => button.addEventListener("click", () => read("source", button.dataset.source, button.dataset.metric)));
all("select[data-figure]").forEach((choice) => choice.addEventListener("change", () => draw(document.querySelector(`.plot[data-figure="${choice.dataset.figure}"]`))));
all(".plot").forEach((plot) => seen.observe(plot));
fill();
list();
