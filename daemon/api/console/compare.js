// Two backtests side by side: what was asked, what came of it, and both accounts on one scale.
import {axis, chart, curve} from "./charts.js";
import {DASH, card, h, heading, number, plain, signed, tag} from "./dom.js";

const FIGURES = [
  ["Return %", each => each.metrics.totalReturnPercent],
  ["Sharpe", each => each.metrics.sharpeRatio],
  ["Sortino", each => each.metrics.sortinoRatio],
  ["Calmar", each => each.metrics.calmarRatio],
  ["Largest drawdown %", each => each.metrics.maxDrawdownPercent],
  ["Trades", each => each.tradeStats.totalTrades],
  ["Won %", each => 100 * each.metrics.winRate],
  ["Profit factor", each => each.metrics.profitFactor],
  ["Fees", each => each.costs.fees],
  ["Slippage", each => each.costs.slippage],
  ["Funding", each => each.costs.funding],
  ["Turnover", each => each.costs.turnover],
  ["In the market %", each => each.exposurePercent],
  ["Band %", each => each.band?.widthPercent ?? null],
  ["Times the idea was tried", each => each.verdict?.trials ?? null],
];

export async function compare(here, first, second) {
  const found = await Promise.all(
    [first, second].map(id => here.client.get(`/api/v1/backtest/${encodeURIComponent(id)}`)),
  );
  here.node.append(heading("Two backtests", h("a", {href: "#/backtests"}, "All backtests")));
  if (found.some(each => each.status !== "completed" || !each.metrics)) {
    here.node.append(h("p", {class: "empty"}, "Only backtests that have a result can be compared."));
    return;
  }
  const [one, other] = found;
  const lines = h("div", {class: "chart", role: "img", "aria-label": "Both accounts"});
  const title = each => h("a", {href: `#/backtests/${encodeURIComponent(each.id)}`}, each.name || each.id);
  here.node.append(
    card(
      "Both accounts, percent of the capital",
      h(
        "div",
        {class: "legend"},
        h("span", {}, h("i", {style: {background: "var(--accent)"}}), title(one)),
        h("span", {}, h("i", {style: {background: "var(--loss)"}}), title(other)),
      ),
      lines,
    ),
    h(
      "div",
      {class: "grid"},
      card(
        "What came of it",
        plain(
          ["", "First", "Second", "Difference"],
          [
            ["Backtest", title(one), title(other), ""],
            ["Verdict", tag(one.verdict?.verdict), tag(other.verdict?.verdict), ""],
            ...FIGURES.map(([name, of]) => [
              name,
              number(of(one)),
              number(of(other)),
              of(one) === null || of(other) === null ? DASH : signed(of(other) - of(one)),
            ]),
          ],
          [],
          "fixed",
        ),
      ),
      card("What was asked otherwise", differences(one.resolved, other.resolved)),
    ),
  );
  const grown = ({equityCurve}) => equityCurve.map(each => 100 * (each.equity / equityCurve[0].equity - 1));
  const times = ({equityCurve}) => equityCurve.map(each => each.timestamp);
  await chart(lines, () => ({
    traces: [curve(one.name, times(one), grown(one), "accent"), curve(other.name, times(other), grown(other), "loss")],
    layout: {
      height: 340,
      xaxis: axis({type: "date"}),
      yaxis: axis({side: "right", ticksuffix: " %"}),
      margin: {l: 12, r: 64, t: 8, b: 30},
      hovermode: "x unified",
      uirevision: "compare",
    },
  }));
}

function differences(one, other) {
  const left = flat(one),
    right = flat(other);
  const rows = [...new Set([...left.keys(), ...right.keys()])].filter(name => left.get(name) !== right.get(name));
  if (!rows.length) return h("p", {class: "soft"}, "Nothing: both were understood alike.");
  return plain(
    ["Field", "First", "Second"],
    rows.map(name => [h("code", {}, name), left.get(name) ?? DASH, right.get(name) ?? DASH]),
  );
}

function flat(value, way = "", found = new Map()) {
  if (value !== null && typeof value === "object")
    for (const [name, each] of Object.entries(value)) flat(each, way ? `${way}.${name}` : name, found);
  else found.set(way, JSON.stringify(value));
  return found;
}
