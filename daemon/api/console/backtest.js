// One backtest: live progress, then the verdict with its reasons, the account, and every trade with its receipts.
import {axis, chart, color, curve} from "./charts.js";
import {
  DASH,
  card,
  choice,
  empty,
  figure,
  h,
  heading,
  kind,
  number,
  percent,
  plain,
  price,
  signed,
  span,
  tag,
  when,
  whole,
} from "./dom.js";
import {market} from "./market.js";
import {table} from "./table.js";

const PAGE = 10_000;
const MOST_TRADES = 200_000;
const MOST_MARKS = 400;
const REPORTS = ["html", "pdf", "csv", "json"];
const isAtWork = state => ["queued", "running"].includes(state.status);

export async function one(here, id) {
  const head = h("div", {}),
    state = h("div", {}),
    found = h("div", {});
  let shown = "";
  here.node.append(head, state, found);
  const update = here.attempt(async () => {
    const status = await here.client.call("backtest:status", {id});
    head.replaceChildren(
      heading(
        status.name || id,
        tag(status.status),
        h("span", {class: "soft small"}, `${id} \u00b7 ${status.symbols.join(", ")} ${status.timeframe}`),
        actions(here, status),
      ),
    );
    state.replaceChildren(
      isAtWork(status)
        ? progress(status)
        : status.error
          ? failure(status)
          : "",
    );
    if (status.status === "completed" && shown !== "completed")
      await result(here, await here.client.get(`/api/v1/backtest/${encodeURIComponent(id)}`), found);
    shown = status.status;
  });
  here.feed.follow(here, ["backtest"], update, {id, pause: 250});
  await update();
}

const progress = status =>
  card(
    "Progress",
    h("progress", {max: 100, value: status.progress, "aria-label": "Progress"}),
    h(
      "p",
      {class: "soft small"},
      `${number(status.progress, 1)} % \u00b7 ${whole(status.eventsProcessed)} events \u00b7 market time ${when(status.currentTimestamp)} \u00b7 ${span(status.estimatedTimeRemaining)} left`,
    ),
  );

/** Why there is no result; of a strategy of the user's own that raised, the lines of its file that led there. */
const failure = ({error, errorCode, errorTraceback}) =>
  card(
    "It has no result",
    h("p", {}, h("b", {class: "bad"}, errorCode), " ", error),
    errorTraceback?.length
      ? [h("h3", {}, "The strategy's own lines, the last one raised"), h("pre", {}, errorTraceback.join("\n"))]
      : null,
  );

function actions(here, status) {
  const id = encodeURIComponent(status.id);
  const again = h(
    "button",
    {
      class: "quiet",
      onclick: () => {
        location.hash = `#/backtests/new/${id}`;
      },
    },
    "Change and run again",
  );
  if (isAtWork(status))
    return h(
      "button",
      {class: "quiet", onclick: here.attempt(() => here.client.call("backtest:cancel", {id: status.id}))},
      "Cancel",
    );
  if (status.status !== "completed") return null;
  const form = choice(REPORTS, "html", {"aria-label": "Format of the report"});
  const save = here.attempt(async () => {
    const file = URL.createObjectURL(await here.client.file(`/api/v1/backtest/${id}/report?format=${form.value}`));
    h("a", {href: file, download: `backtest-${status.id}.${form.value}`}).click();
    setTimeout(() => URL.revokeObjectURL(file), 60_000);
  });
  return [again, form, h("button", {class: "quiet", onclick: save}, "Save report")];
}

async function result(here, found, place) {
  const {metrics, tradeStats, costs, band, buyAndHold} = found;
  const account = h("div", {class: "chart", role: "img", "aria-label": "Equity and drawdown"}),
    trades = h("div", {});
  place.replaceChildren(
    found.verdict ? verdict(found.verdict) : "",
    h(
      "div",
      {class: "figures"},
      figure(
        "Return",
        percent(metrics.totalReturnPercent),
        `holding ${percent(buyAndHold.totalReturnPercent)}`,
        kind(metrics.totalReturnPercent),
      ),
      figure("Sharpe", number(metrics.sharpeRatio), `Sortino ${number(metrics.sortinoRatio)}`),
      figure("Largest drawdown", `${number(metrics.maxDrawdownPercent)} %`, `Calmar ${number(metrics.calmarRatio)}`),
      figure("Trades", whole(tradeStats.totalTrades), `${number(100 * metrics.winRate, 1)} % won`),
      figure("Profit factor", number(metrics.profitFactor), `expectancy ${signed(metrics.expectancy)}`),
      figure(
        "Costs",
        number(costs.fees + costs.slippage),
        `fees ${number(costs.fees)}, slippage ${number(costs.slippage)}`,
      ),
      band
        ? figure(
            "Band",
            `${number(band.widthPercent)} %`,
            `${percent(band.pessimistic.totalReturnPercent)} to ${percent(band.optimistic.totalReturnPercent)}`,
            band.isWide ? "warn" : "",
          )
        : null,
    ),
    card("Account", account),
    trades,
    h(
      "div",
      {class: "grid"},
      card("What was assumed", list([...found.assumptions, ...found.readings])),
      card(
        "To be read beside it",
        found.notes.length ? list(found.notes) : h("p", {class: "soft"}, "Nothing."),
        h(
          "details",
          {},
          h("summary", {}, "Configuration as it was sent"),
          h("pre", {}, JSON.stringify(found.config, null, 2)),
        ),
      ),
    ),
  );
  await accountChart(account, found);
  await tradesOf(here, found, trades);
}

const list = words =>
  h(
    "ul",
    {},
    words.map(each => h("li", {}, each)),
  );

const verdict = found =>
  h(
    "section",
    {class: `card verdict ${found.verdict}`},
    h("p", {class: "word"}, found.verdict),
    list(found.reasons),
    h(
      "p",
      {class: "soft small"},
      `This idea was tried ${whole(found.trials)} time${found.trials === 1 ? "" : "s"}; the best of so many without an edge has a Sharpe of ${number(found.chanceSharpe)} on average.`,
    ),
    h(
      "details",
      {},
      h("summary", {}, "Every question that was put to it"),
      plain(
        ["Question", "Answer", "Value", "Limit", ""],
        found.checks.map(each => [
          each.name,
          h("span", {class: {pass: "good", warn: "warn", fail: "bad"}[each.standing] ?? "soft"}, each.standing),
          number(each.value, 3),
          number(each.limit, 3),
          each.words,
        ]),
        [2, 3],
      ),
      h("h3", {}, "What would change it"),
      list(found.wouldChange),
    ),
  );

function accountChart(node, {equityCurve, drawdownCurve}) {
  const column = (rows, name) => rows.map(each => each[name]);
  return chart(node, () => ({
    traces: [
      curve("Equity", column(equityCurve, "timestamp"), column(equityCurve, "equity"), "accent"),
      curve(
        "Drawdown %",
        column(drawdownCurve, "timestamp"),
        column(drawdownCurve, "drawdownPercent").map(each => -each),
        "loss",
        {yaxis: "y2", fill: "tozeroy", fillcolor: color("loss-tint")},
      ),
    ],
    layout: {
      height: 360,
      xaxis: axis({type: "date", anchor: "y2"}),
      yaxis: axis({domain: [0.34, 1], side: "right"}),
      yaxis2: axis({domain: [0, 0.27], side: "right", nticks: 4, ticksuffix: " %"}),
      margin: {l: 12, r: 64, t: 8, b: 30},
      hovermode: "x unified",
      uirevision: "account",
    },
  }));
}

// Trades.

async function tradesOf(here, found, place) {
  if (!found.tradeStats.totalTrades) {
    place.replaceChildren(
      card("Trades", empty("It made no trade: its rules never fired in this range, or every order was refused.")),
    );
    return;
  }
  const [trades, series] = await Promise.all([allTrades(here, found.id), here.client.call("data:symbols")]);
  const receipts = h("div", {}),
    charted = h("div", {});
  const isOne = trades.every(each => each.symbol === trades[0].symbol);
  let shown = null;
  // The chart is of one symbol: that of the trade that was opened last.
  const see = (symbol, start, end) => {
    if (shown?.symbol === symbol) return shown.go(start, end);
    const stored = series.filter(each => each.symbol === keyOf(found, series, symbol));
    const made = stored.length
      ? market(here, stored[0].symbol, stored, {
          height: 420,
          range: [start, end],
          extra: (from, to) => marks(trades, symbol, from, to),
          label: `Trades of ${symbol} on candles`,
        })
      : {node: h("p", {class: "soft"}, "The bars it ran on are not stored any more."), go() {}};
    shown = {symbol, go: made.go};
    charted.replaceChildren(isOne ? "" : h("h3", {}, symbol), made.node);
  };
  see(trades[0].symbol, ...wider(trades[0].entryTime, trades.at(-1).exitTime));
  const rows = table({
    label: "Trades",
    rows: trades,
    height: 380,
    open: row => {
      see(row.symbol, ...wider(row.entryTime, row.exitTime, 2));
      receiptsOf(here, found.id, row, receipts);
    },
    columns: [
      {title: "#", width: "44px", right: true, text: row => whole(row.id), sort: row => row.id},
      ...(isOne ? [] : [{title: "Symbol", width: "110px", text: row => row.symbol}]),
      {title: "Side", width: "44px", text: row => row.side},
      {title: "Entry", width: "142px", text: row => when(row.entryTime), sort: row => row.entryTime},
      {title: "At", width: "80px", right: true, text: row => price(row.entryPrice), sort: row => row.entryPrice},
      {title: "Exit", width: "142px", text: row => when(row.exitTime), sort: row => row.exitTime},
      {title: "At", width: "80px", right: true, text: row => price(row.exitPrice), sort: row => row.exitPrice},
      {
        title: "P&L",
        width: "84px",
        right: true,
        text: row => signed(row.pnl),
        sort: row => row.pnl,
        kind: row => kind(row.pnl),
      },
      {
        title: "%",
        width: "76px",
        right: true,
        text: row => percent(row.pnlPercent),
        sort: row => row.pnlPercent,
        kind: row => kind(row.pnl),
      },
      {title: "Held", width: "66px", right: true, text: row => span(row.holdTime), sort: row => row.holdTime},
      {title: "Left by", width: "minmax(100px, 1fr)", text: row => row.exitReason.replaceAll("_", " ")},
    ],
  });
  place.replaceChildren(
    card(
      "Trades",
      charted,
      h("div", {class: "bar"}),
      rows.node,
      trades.length < found.tradeStats.totalTrades
        ? h(
            "p",
            {class: "soft small"},
            `The first ${whole(trades.length)} of ${whole(found.tradeStats.totalTrades)}: the report as CSV has all.`,
          )
        : null,
      receipts,
    ),
  );
}

async function allTrades(here, id) {
  const found = [];
  let cursor = null;
  do {
    const page = await here.client.get(
      `/api/v1/backtest/${encodeURIComponent(id)}/trades?limit=${PAGE}${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`,
    );
    found.push(...page.results);
    cursor = page.next_cursor;
  } while (cursor && found.length < MOST_TRADES);
  return found;
}

/** The stored name of a symbol that a trade names as the configuration did. */
function keyOf(found, series, symbol) {
  const used = found.data.map(each => each.symbol);
  const bare = text =>
    text
      .split(":")
      .pop()
      .replace(/[^A-Z0-9]/gi, "")
      .toUpperCase();
  return (
    used.find(each => bare(each) === bare(symbol)) ?? series.find(each => bare(each.symbol) === bare(symbol))?.symbol
  );
}

function wider(start, end, times = 0.03) {
  const beside = Math.max(times * (end - start), 60_000);
  return [start - beside, end + beside];
}

function marks(trades, symbol, start, end) {
  const near = trades
    .filter(each => each.symbol === symbol && each.exitTime >= start && each.entryTime <= end)
    .slice(0, MOST_MARKS);
  const sign = (name, x, y, shape, shade) => ({
    type: "scatter",
    mode: "markers",
    name,
    x,
    y,
    marker: {symbol: shape, size: 10, color: shade, line: {color: color("card"), width: 1}},
    hovertemplate: `${name} %{y}<extra></extra>`,
  });
  const between = near.flatMap(each => [
    [each.entryTime, each.entryPrice],
    [each.exitTime, each.exitPrice],
    [null, null],
  ]);
  return [
    {
      type: "scatter",
      mode: "lines",
      x: between.map(([x]) => x),
      y: between.map(([, y]) => y),
      line: {color: color("soft"), width: 1, dash: "dot"},
      hoverinfo: "skip",
    },
    sign(
      "in",
      near.map(each => each.entryTime),
      near.map(each => each.entryPrice),
      near.map(each => (each.side === "long" ? "triangle-up" : "triangle-down")),
      color("accent"),
    ),
    sign(
      "out",
      near.map(each => each.exitTime),
      near.map(each => each.exitPrice),
      "diamond",
      near.map(each => color(each.pnl > 0 ? "gain" : "loss")),
    ),
  ];
}

async function receiptsOf(here, id, trade, place) {
  await here.attempt(async () => {
    const {results} = await here.client.get(`/api/v1/backtest/${encodeURIComponent(id)}/receipts?trade=${trade.id}`);
    place.replaceChildren(
      h("h3", {}, `Receipts of trade ${whole(trade.id)}: why each fill has its price`),
      plain(
        [
          "Time",
          "",
          "Why",
          "Quantity",
          "Reference",
          "Price",
          "Spread",
          "Impact",
          "Slippage",
          "Fee",
          "Of the volume",
          "Model",
        ],
        results.map(each => [
          when(each.timestamp),
          each.side,
          `${each.reason.replaceAll("_", " ")} (${each.liquidity})`,
          price(each.quantity),
          `${each.reference} ${price(each.referencePrice)}`,
          price(each.price),
          number(each.spread, 4),
          number(each.impact, 4),
          number(each.slippage, 4),
          number(each.fee, 4),
          each.participation === null ? DASH : `${number(100 * each.participation, 3)} %`,
          each.model,
        ]),
        [3, 4, 5, 6, 7, 8, 9, 10],
      ),
    );
    place.scrollIntoView({block: "nearest"});
  })();
}
