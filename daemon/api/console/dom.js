// Elements, made of parts: whatever is not an element becomes a text node. Names come from users, so nothing here, or in
// any other module, is ever read as HTML.

export function h(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "value") node.value = value;
    else if (name === "style") Object.assign(node.style, value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(3).filter(child => child !== null && child !== undefined && child !== false));
  return node;
}

export const card = (title, ...content) => h("section", {class: "card"}, title && h("h2", {}, title), content);

export const heading = (title, ...beside) =>
  h("div", {class: "title"}, h("h1", {}, title), beside.length ? h("div", {class: "bar"}, beside) : null);

export const figure = (name, value, words = "", kind = "") =>
  h("div", {class: "figure"}, h("span", {}, name), h("b", {class: kind}, value), h("span", {}, words));

/** What there is to do where there is nothing to see: words, and commands as code. */
export const empty = (...words) =>
  h(
    "p",
    {class: "empty"},
    words.map(each => (typeof each === "string" && each.startsWith("$ ") ? h("code", {}, each.slice(2)) : each)),
  );

export const tag = word => h("span", {class: `tag ${word ?? ""}`}, word ?? "\u2013");

export const pairs = rows =>
  h(
    "dl",
    {class: "pairs"},
    rows.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]),
  );

export const field = (name, control) => h("label", {}, name, control);

export const choice = (options, chosen, more = {}) =>
  h(
    "select",
    more,
    options.map(each => {
      const [value, words] = Array.isArray(each) ? each : [each, each];
      return h("option", {value, selected: [chosen].flat().includes(value)}, words);
    }),
  );

export const picked = select => [...select.selectedOptions].map(each => each.value);

/** A small table, for some dozens of rows; `table.js` is for more. right: places of columns of figures. look: `fixed`
    for columns of one width. */
export function plain(headings, rows, right = [], look = "") {
  const kind = place => (right.includes(place) ? "right" : "");
  const cells = (name, row) => row.map((each, place) => h(name, {class: kind(place)}, each));
  return h(
    "div",
    {class: "wide"},
    h(
      "table",
      {class: `plain ${look}`},
      h("thead", {}, h("tr", {}, cells("th", headings))),
      h(
        "tbody",
        {},
        rows.map(row => h("tr", {}, cells("td", row))),
      ),
    ),
  );
}

/** A line of recent values, as wide as its place. */
export function spark(values) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  const line = document.createElementNS(space, "polyline");
  const low = Math.min(...values),
    high = Math.max(...values);
  const at = (value, place) => [
    (100 * place) / Math.max(values.length - 1, 1),
    23 - (20 * (value - low)) / (high - low || 1),
  ];
  svg.setAttribute("viewBox", "0 0 100 26");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  line.setAttribute("class", "spark");
  line.setAttribute("points", values.map((value, place) => at(value, place).join(",")).join(" "));
  svg.append(line);
  return svg;
}

// Figures as people read them; a dash where there is none.

export const DASH = "\u2013";
const known = (value, text) => (value === null || value === undefined || Number.isNaN(value) ? DASH : text(value));
const decimals = (value, digits) =>
  value
    .toLocaleString("en-US", {minimumFractionDigits: digits, maximumFractionDigits: digits, signDisplay: "negative"})
    .replace("-", "\u2212");

export const whole = value => known(value, () => Math.round(value).toLocaleString("en-US"));
export const number = (value, digits = 2) => known(value, () => decimals(value, digits));
export const signed = (value, digits = 2) =>
  known(
    value,
    () => (Number(value.toFixed(digits)) === 0 ? "" : value > 0 ? "+" : "\u2212") + decimals(Math.abs(value), digits),
  );
export const percent = (value, digits = 2) => known(value, () => `${signed(value, digits)} %`);
export const price = value => known(value, () => Number(value).toLocaleString("en-US", {maximumSignificantDigits: 8}));
export const when = ms => known(ms, () => new Date(ms).toISOString().replace("T", " ").slice(0, 19));
export const day = ms => known(ms, () => new Date(ms).toISOString().slice(0, 10));
export const moment = text => known(text, () => when(Date.parse(text)));
export const kind = value => (value > 0 ? "gain" : value < 0 ? "loss" : "");

export function bytes(count) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let place = 0,
    left = count;
  for (; left >= 1000 && place < units.length - 1; place++) left /= 1000;
  return known(count, () => `${decimals(left, place && left < 100 ? 1 : 0)} ${units[place]}`);
}

export function span(ms) {
  const steps = [
    ["d", 86400000],
    ["h", 3600000],
    ["min", 60000],
    ["s", 1000],
  ];
  const [unit, size] = steps.find(([, each]) => ms >= each) ?? ["ms", 1];
  return known(ms, () => `${decimals(ms / size, ms / size < 10 && unit !== "ms" ? 1 : 0)} ${unit}`);
}
