// Data: what is stored, from when to when, and what is missing.
import {axis, chart, color, escaped} from "./charts.js";
import {DASH, bytes, card, day, empty, figure, h, heading, plain, when, whole} from "./dom.js";
import {market} from "./market.js";
import {table} from "./table.js";

const MOST_LINES = 60;
const link = symbol => `#/data/${encodeURIComponent(symbol)}`;

export async function show(here) {
  const [series, gaps] = await Promise.all([here.client.call("data:symbols"), here.client.call("data:gaps")]);
  const [symbol] = here.words;
  if (symbol)
    return one(
      here,
      symbol,
      series.filter(each => each.symbol === symbol),
      gaps.filter(each => each.symbol === symbol),
    );
  if (!series.length) {
    here.node.append(
      heading("Data"),
      empty(
        "Nothing is stored yet. Import a file: ",
        "$ atlasd import bars FILE --symbol SPY --timeframe 1Hour",
        " or fetch from a venue: ",
        "$ atlasd fetch binance BTCUSDT --start 2024-08-01 --end 2024-08-31",
      ),
    );
    return null;
  }
  const filter = h("input", {
    type: "search",
    placeholder: "Filter symbols",
    "aria-label": "Filter symbols",
    oninput: draw,
  });
  const list = table({
    label: "Stored series",
    height: 400,
    open: row => {
      location.hash = link(row.symbol);
    },
    columns: [
      {
        title: "Symbol",
        width: "minmax(150px, 2fr)",
        text: row => row.symbol,
        node: row => h("a", {href: link(row.symbol), tabindex: -1}, row.symbol),
      },
      {title: "Stream", width: "100px", text: row => row.stream},
      {title: "Timeframe", width: "90px", text: row => row.timeframe ?? DASH},
      {title: "Rows", right: true, width: "110px", text: row => whole(row.rows), sort: row => row.rows},
      {title: "From", width: "100px", text: row => day(row.first), sort: row => row.first},
      {title: "To", width: "100px", text: row => day(row.last), sort: row => row.last},
      {title: "Size", right: true, width: "90px", text: row => bytes(row.bytes), sort: row => row.bytes},
      {
        title: "Gaps",
        right: true,
        width: "70px",
        text: row => whole(row.gaps),
        sort: row => row.gaps,
        kind: row => (row.gaps ? "loss" : "soft"),
      },
    ],
  });
  const total = name => series.reduce((sum, each) => sum + each[name], 0);
  const line = h("div", {class: "chart", role: "img", "aria-label": "Timeline of the stored series and their gaps"});
  const note = h("p", {class: "soft small"});
  here.node.append(
    heading("Data", filter),
    h(
      "div",
      {class: "figures"},
      figure("Symbols", whole(new Set(series.map(each => each.symbol)).size)),
      figure("Series", whole(series.length)),
      figure("Rows", whole(total("rows"))),
      figure("On disk", bytes(total("bytes"))),
      figure("Known gaps", whole(total("gaps")), "", total("gaps") ? "loss" : "good"),
    ),
    list.node,
    h("div", {class: "bar"}),
    card("Ranges and gaps", line, note),
  );

  function draw() {
    const words = filter.value.toLowerCase();
    const shown = series.filter(each =>
      `${each.symbol} ${each.stream} ${each.timeframe}`.toLowerCase().includes(words),
    );
    list.show(shown);
    note.textContent =
      shown.length > MOST_LINES ? `The first ${MOST_LINES} of ${whole(shown.length)} series; filter for others.` : "";
    here.attempt(() => timeline(line, shown.slice(0, MOST_LINES), gaps))();
  }
  draw();
  return null;
}

const named = each => `${each.symbol} ${each.timeframe ?? each.stream}`;

function timeline(node, series, gaps) {
  const names = new Set(series.map(named));
  const missing = gaps.filter(each => names.has(named(each)));
  return chart(node, () => ({
    traces: [
      {
        type: "bar",
        orientation: "h",
        y: series.map(each => escaped(named(each))),
        base: series.map(each => each.first),
        x: series.map(each => Math.max(each.last - each.first, 1)),
        width: 0.55,
        marker: {color: color("gain-tint")},
        customdata: series.map(each => [whole(each.rows), when(each.first), when(each.last)]),
        hovertemplate: "%{y}<br>%{customdata[0]} rows<br>%{customdata[1]} to %{customdata[2]}<extra></extra>",
      },
      {
        type: "scatter",
        mode: "lines+markers",
        x: missing.flatMap(each => [each.start, each.stop, null]),
        y: missing.flatMap(each => [escaped(named(each)), escaped(named(each)), null]),
        line: {color: color("loss"), width: 9},
        marker: {symbol: "line-ns", size: 13, line: {color: color("loss"), width: 1.5}},
        text: missing.flatMap(each => {
          const words = `gap of ${each.missing === null ? "unknown size" : `${whole(each.missing)} rows`}<br>${when(each.start)} to ${when(each.stop)}<br>${escaped(each.reason)}`;
          return [words, words, ""];
        }),
        hovertemplate: "%{text}<extra></extra>",
      },
    ],
    layout: {
      height: 70 + 24 * series.length,
      xaxis: axis({type: "date"}),
      yaxis: axis({autorange: "reversed", fixedrange: true, ticks: ""}),
      margin: {l: 10, r: 14, t: 4, b: 30},
      uirevision: "timeline",
    },
  }));
}

function one(here, symbol, series, gaps) {
  here.node.append(heading(symbol, h("a", {href: "#/data"}, "All series")));
  if (!series.length) {
    here.node.append(
      empty("Nothing is stored under this symbol. ", h("a", {href: "#/data"}, "All series"), " lists what is."),
    );
    return null;
  }
  if (series.some(each => !["depth", "funding"].includes(each.stream)))
    here.node.append(card(null, market(here, symbol, series).node));
  const line = h("div", {class: "chart", role: "img", "aria-label": `Timeline of ${symbol}`});
  here.node.append(
    card(
      "Ranges and gaps",
      line,
      plain(
        ["Stream", "Timeframe", "Rows", "From", "To", "Size", "Gaps"],
        series.map(each => [
          each.stream,
          each.timeframe ?? DASH,
          whole(each.rows),
          when(each.first),
          when(each.last),
          bytes(each.bytes),
          whole(each.gaps),
        ]),
        [2, 5, 6],
      ),
    ),
  );
  if (gaps.length)
    here.node.append(
      card(
        "Known gaps",
        table({
          label: "Gaps",
          rows: gaps,
          height: 300,
          columns: [
            {title: "Stream", width: "110px", text: row => row.timeframe ?? row.stream},
            {title: "From", width: "150px", text: row => when(row.start), sort: row => row.start},
            {title: "To", width: "150px", text: row => when(row.stop), sort: row => row.stop},
            {title: "Missing", right: true, width: "90px", text: row => whole(row.missing), sort: row => row.missing},
            {title: "Why", text: row => row.reason},
          ],
        }).node,
      ),
    );
  return timeline(line, series, gaps);
}
