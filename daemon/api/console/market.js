// The chart of one instrument: candles with volume, or ticks when it is zoomed in; zooming asks the daemon for more detail.
import {candles, chart, marketLayout, ticks} from "./charts.js";
import {choice, h, when, whole} from "./dom.js";
import {settled} from "./feed.js";

export const TIMEFRAMES = {
  "1Sec": 1_000,
  "1Min": 60_000,
  "5Min": 300_000,
  "15Min": 900_000,
  "1Hour": 3_600_000,
  "1Day": 86_400_000,
};
const TICKS = ["trades", "agg_trades", "quotes"];
const CANDLES = 500;
const POINTS = 2_000;
const BESIDE = 0.15; // of the range, to either side, so that a small move needs no answer
const TICKS_BELOW_MS = 20 * 60_000;
const SPANS = [
  ["1 h", 3_600_000],
  ["1 d", 86_400_000],
  ["1 w", 7 * 86_400_000],
  ["1 mo", 30 * 86_400_000],
  ["1 y", 365 * 86_400_000],
];

/**
 * series: what is stored of the instrument, as `data:symbols` tells it. extra(start, end): more traces. range: to begin
 * with, Unix ms; the last candles without one. Returns {node, go(start, end)}.
 */
export function market(here, symbol, series, {height = 430, range = null, extra = () => [], label = ""} = {}) {
  const priced = series.filter(each => each.stream === "bars" || TICKS.includes(each.stream));
  const first = Math.min(...priced.map(each => each.first)),
    last = Math.max(...priced.map(each => each.last)) + 1;
  const streams = TICKS.filter(stream => series.some(each => each.stream === stream));
  const hasBars = priced.some(each => each.stream !== "quotes");
  const detail = choice(
    [["auto", "Automatic"], ...(hasBars ? Object.keys(TIMEFRAMES).filter(makes) : []), ...streams],
    "auto",
    {"aria-label": "Detail", onchange: () => load(...now)},
  );
  const words = h("span", {class: "soft small", role: "status"});
  const place = h("div", {
    class: "chart",
    "aria-label": label || `Chart of ${symbol}`,
    role: "img",
    style: {minHeight: `${height}px`},
  });
  const spans = SPANS.filter(([, length]) => length < last - first).map(([name, length]) =>
    h("button", {class: "quiet", onclick: () => go(Math.max(first, now[1] - length), now[1])}, name),
  );
  const node = h(
    "div",
    {},
    h(
      "div",
      {class: "bar"},
      detail,
      spans,
      h("button", {class: "quiet", onclick: () => go(first, last)}, "All"),
      h("button", {class: "quiet", "aria-label": "Earlier", onclick: () => shift(-0.5)}, "\u2190"),
      h("button", {class: "quiet", "aria-label": "Later", onclick: () => shift(0.5)}, "\u2192"),
      words,
    ),
    place,
  );
  let now = range ?? usual(),
    asked = 0;

  function makes(timeframe) {
    return priced.some(
      each =>
        each.stream !== "quotes" &&
        (each.timeframe === null || TIMEFRAMES[timeframe] % TIMEFRAMES[each.timeframe] === 0),
    );
  }

  function usual() {
    const shortest = Math.min(...priced.map(each => TIMEFRAMES[each.timeframe] ?? 1_000));
    return [Math.max(first, last - (CANDLES / 2) * shortest), last];
  }

  function query(start, end) {
    const wanted = detail.value,
      beside = BESIDE * (end - start);
    const fields = new URLSearchParams({
      start: Math.floor(start - beside),
      end: Math.ceil(end + beside),
      points: CANDLES,
    });
    const asTicks = streams.includes(wanted)
      ? wanted
      : wanted === "auto" && (!hasBars || end - start <= TICKS_BELOW_MS)
        ? streams[0]
        : null;
    if (asTicks) {
      fields.set("stream", asTicks);
      fields.set("points", POINTS);
    } else if (wanted !== "auto") fields.set("timeframe", wanted);
    return fields;
  }

  const load = here.attempt(async (start, end) => {
    now = [start, end];
    const mine = ++asked;
    const view = await here.client.get(`/api/v1/data/view/${encodeURIComponent(symbol)}?${query(start, end)}`);
    if (mine !== asked) return;
    const shown = view.stream === "bars" ? `${view.timeframe} candles` : view.stream;
    words.textContent =
      view.rows === 0
        ? `${when(start)}: nothing is stored here`
        : `${shown} \u00b7 ${whole(view.columns.timestamp.length)} points${view.is_decimated ? ` of ${whole(view.rows)} rows` : ""} \u00b7 ${when(start)} to ${when(end)}`;
    await chart(
      place,
      () => ({
        traces: [...(view.stream === "bars" ? candles(view) : ticks(view)), ...extra(view.start, view.end)],
        layout: marketLayout(
          height,
          [start, end].map(each => new Date(each).toISOString()),
          view.stream === "bars",
        ),
      }),
      {zoomed: settled(150, (from = first, to = last) => load(from, to))},
    );
  });

  const go = (start, end) => load(start, end);
  const shift = part => load(...now.map(each => each + part * (now[1] - now[0])));
  load(...now);
  return {node, go};
}
