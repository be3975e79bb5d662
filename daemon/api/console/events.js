// Events: what the daemon tells, as it tells it.
import {card, choice, h, heading, when, whole} from "./dom.js";
import {settled} from "./feed.js";
import {table} from "./table.js";

export async function show(here) {
  const words = h("input", {
    type: "search",
    placeholder: "Filter by any word",
    "aria-label": "Filter events",
    oninput: () => draw(),
  });
  const room = choice(
    [
      ["", "all events"],
      ["facts", "facts only"],
      "backtest",
      "optimization",
      "probe",
      "signal",
      "trade",
      "killswitch",
      "block",
    ],
    "",
    {"aria-label": "Which events", onchange: () => draw()},
  );
  const pause = h("input", {type: "checkbox", onchange: () => draw()});
  const count = h("span", {class: "soft small"});
  const detail = h("pre", {}, "Choose an event to see its frame.");
  const list = table({
    label: "Events",
    height: 560,
    none: "Nothing was told yet: start a backtest or a probe, and watch.",
    open: row => {
      detail.textContent = JSON.stringify(row, null, 2);
    },
    columns: [
      {title: "Time (UTC)", width: "150px", text: row => when(row.time)},
      {title: "Event", width: "170px", text: row => row.name},
      {title: "Run", width: "130px", text: row => row.id},
      {
        title: "Seq",
        width: "70px",
        right: true,
        text: row => (row.seq === null ? "" : whole(row.seq)),
        sort: row => row.seq,
      },
      {title: "What", width: "minmax(260px, 1fr)", text: row => summary(row.fields)},
    ],
  });
  here.node.append(
    heading("Events", h("label", {class: "check"}, pause, "hold still"), room, words),
    h("p", {}, count),
    list.node,
    h("div", {class: "bar"}),
    card("Frame", detail),
  );

  function draw() {
    if (pause.checked) return;
    const text = words.value.toLowerCase();
    const shown = here.feed.kept.filter(
      row =>
        (room.value === "" || (room.value === "facts" ? row.seq !== null : row.name.startsWith(`${room.value}:`))) &&
        (!text || `${row.name} ${row.id} ${JSON.stringify(row.fields)}`.toLowerCase().includes(text)),
    );
    count.textContent = `${whole(shown.length)} of the last ${whole(here.feed.kept.length)}. Facts have a number and are told again after a lost connection; progress is only latest.`;
    list.show(shown);
  }
  const soon = settled(100, draw);
  here.on(here.feed, "told", soon);
  draw();
}

const summary = fields =>
  Object.entries(fields)
    .filter(([name, value]) => name !== "id" && value !== null && typeof value !== "object")
    .map(([name, value]) => `${name} ${typeof value === "number" ? Math.round(1000 * value) / 1000 : value}`)
    .join(" \u00b7 ");
