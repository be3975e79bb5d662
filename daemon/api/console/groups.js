// One combination of a run: its groups by day and hour of entry, and its trades where they were kept.
import {card, h, kind, moment, number, percent, whole} from "./dom.js";
import {table} from "./table.js";

const MOST_ROWS = 100_000;

/** The groups of one combination by day and hour of entry, and its trades where they were kept. */
export async function groups(here, run, each, place) {
  const query = new URLSearchParams({
    symbol: each.symbol,
    timeframe: each.timeframe,
    strategy_id: each.strategy_id,
    risk_profile: each.risk_profile,
    limit: MOST_ROWS,
  });
  const rows = name =>
    here.client.get(`/api/v1/runs/${encodeURIComponent(run.run_id)}/${name}?${query}`).then(answer => answer.results);
  await here.attempt(async () => {
    const [found, trades] = await Promise.all([rows("results"), run.persist_trades ? rows("trades") : null]);
    place.replaceChildren(
      card(
        `${each.strategy_name}, ${each.symbol} ${each.timeframe}, ${each.risk_profile}`,
        h("h3", {}, `${whole(found.length)} groups by day and hour of entry`),
        groupTable(found).node,
        trades
          ? [h("h3", {}, `${whole(trades.length)} trades`), tradeTable(trades).node]
          : h("p", {class: "soft small"}, "This run kept no trades: start one with \u201ckeep every trade\u201d."),
      ),
    );
    place.scrollIntoView({block: "start"});
  })();
}

const fraction = (title, name) => ({
  title,
  width: "90px",
  right: true,
  text: row => percent(100 * row[name], 3),
  sort: row => row[name],
  kind: row => kind(row[name]),
});

const groupTable = rows =>
  table({
    label: "Groups",
    rows,
    height: 320,
    columns: [
      {title: "Day", width: "100px", text: row => row.open_day},
      {title: "Hour", width: "60px", right: true, text: row => row.open_hour},
      {title: "Side", width: "70px", text: row => row.long_short},
      {title: "Trades", width: "70px", right: true, text: row => whole(row.num_trades), sort: row => row.num_trades},
      fraction("Mean", "pnl_mean"),
      fraction("Deviation", "pnl_std"),
      fraction("Drawdown", "max_drawdown"),
      fraction("Best", "max_profit"),
    ],
  });

const tradeTable = rows =>
  table({
    label: "Trades",
    rows,
    height: 380,
    columns: [
      {title: "Entry", width: "150px", text: row => moment(row.entry_time)},
      {title: "Exit", width: "150px", text: row => moment(row.exit_time)},
      {title: "Side", width: "70px", text: row => row.direction},
      {title: "At", width: "100px", right: true, text: row => number(row.entry_price, 4), sort: row => row.entry_price},
      {
        title: "Out at",
        width: "100px",
        right: true,
        text: row => number(row.exit_price, 4),
        sort: row => row.exit_price,
      },
      fraction("P&L", "pnl_pct"),
      {title: "Bars", width: "60px", right: true, text: row => whole(row.bars_held), sort: row => row.bars_held},
      {title: "Left by", width: "minmax(110px, 1fr)", text: row => row.exit_reason},
    ],
  });
