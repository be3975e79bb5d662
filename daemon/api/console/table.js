// A table of any length: only the rows that can be seen are elements.
import {h} from "./dom.js";

const ROW = 30; // px; console.css has the same
const BESIDE = 8;
let tables = 0;

/**
 * columns: {title, text(row), width?, right?, sort?(row), kind?(row), node?(row)}. open: called with the row that was
 * clicked or chosen by Enter. height: px at the most. Arrow keys, Page, Home and End walk the rows.
 * Returns {node, show(rows)}.
 */
export function table({columns, rows = [], open = null, label, height = 430, none = "There is nothing here."}) {
  const id = `table${++tables}`;
  const grid = {gridTemplateColumns: columns.map(each => each.width ?? "minmax(90px, 1fr)").join(" ")};
  let shown = rows,
    active = -1,
    order = null,
    frame = 0;
  const body = h("div", {class: "rows", role: "rowgroup"});
  const heads = columns.map((column, place) =>
    h(
      "div",
      {role: "columnheader", class: column.right ? "cell right" : "cell"},
      h("button", {type: "button", onclick: () => sort(place)}, column.title),
    ),
  );
  const head = h("div", {class: "line head", role: "row", style: grid}, heads);
  const node = h(
    "div",
    {
      class: "scroller",
      role: "grid",
      tabindex: 0,
      "aria-label": label,
      onscroll: () => {
        frame ||= requestAnimationFrame(draw);
      },
      onkeydown: pressed,
    },
    h("div", {class: "inner"}, head, body),
  );

  function line(row, place) {
    const cells = columns.map(column => {
      const content = column.node?.(row) ?? column.text(row);
      const words = ["cell", column.right && "right", column.kind?.(row)].filter(Boolean).join(" ");
      return h("div", {class: words, role: "gridcell", title: typeof content === "string" ? content : null}, content);
    });
    return h(
      "div",
      {
        class: `line${open ? " opens" : ""}${place === active ? " active" : ""}`,
        role: "row",
        id: `${id}-${place}`,
        "aria-rowindex": place + 2,
        "aria-selected": place === active,
        style: {...grid, top: `${place * ROW}px`, height: `${ROW}px`},
        onclick: () => choose(place),
      },
      cells,
    );
  }

  function draw() {
    frame = 0;
    const first = Math.max(0, Math.floor(node.scrollTop / ROW) - BESIDE);
    const last = Math.min(shown.length, first + Math.ceil(height / ROW) + 2 * BESIDE);
    body.replaceChildren(...shown.slice(first, last).map((row, place) => line(row, first + place)));
    if (!shown.length) body.replaceChildren(h("div", {class: "line"}, h("span", {class: "soft"}, none)));
  }

  function show(next) {
    shown = order ? ordered(next) : next;
    active = Math.min(active, shown.length - 1);
    body.style.height = `${Math.max(shown.length, 1) * ROW}px`;
    node.style.height = `${Math.min(height, (Math.max(shown.length, 1) + 1) * ROW + 16)}px`;
    node.setAttribute("aria-rowcount", shown.length + 1);
    draw();
  }

  function ordered(list) {
    const value = columns[order.place].sort ?? columns[order.place].text;
    const missing = each => each === null || each === undefined;
    return [...list].sort((one, other) => {
      const a = value(one),
        b = value(other);
      if (missing(a) || missing(b)) return missing(a) - missing(b);
      return order.sign * (a < b ? -1 : a > b ? 1 : 0);
    });
  }

  function sort(place) {
    order = {place, sign: order?.place === place ? -order.sign : 1};
    heads.forEach((each, at) =>
      each.setAttribute("aria-sort", at !== place ? "none" : order.sign > 0 ? "ascending" : "descending"),
    );
    active = -1;
    show(shown);
  }

  function choose(place) {
    move(place);
    if (open && shown[place]) open(shown[place]);
  }

  function move(place) {
    active = Math.max(0, Math.min(shown.length - 1, place));
    const top = active * ROW,
      seen = node.clientHeight - ROW;
    if (top < node.scrollTop) node.scrollTop = top;
    else if (top + ROW > node.scrollTop + seen) node.scrollTop = top + ROW - seen;
    node.setAttribute("aria-activedescendant", `${id}-${active}`);
    draw();
  }

  function pressed(event) {
    if (event.target !== node) return;
    const page = Math.max(1, Math.floor(node.clientHeight / ROW) - 2);
    const steps = {
      ArrowDown: active + 1,
      ArrowUp: active - 1,
      PageDown: active + page,
      PageUp: active - page,
      Home: 0,
      End: shown.length - 1,
    };
    if (event.key in steps) move(steps[event.key]);
    else if (event.key === "Enter" && active >= 0) choose(active);
    else return;
    event.preventDefault();
  }

  show(rows);
  return {node, show};
}
