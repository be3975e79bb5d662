// Backtests: those that were run, a new one, one by itself, and two side by side.
import {card, choice, empty, field, h, heading, number, percent, tag, when, whole} from "./dom.js";
import {compare} from "./compare.js";
import {one} from "./backtest.js";
import {table} from "./table.js";

const SHORT = {"1Sec": "1s", "1Min": "1m", "5Min": "5m", "15Min": "15m", "1Hour": "1h", "1Day": "1d"};
const MODELS = ["volume_weighted", "none", "fixed_bps", "square_root", "almgren_2005", "almgren_chriss", "kyle", "order_book"];
const TEMPLATES = [
  "momentum",
  "mean_reversion",
  "breakout",
  "trend_following",
  "rsi_divergence",
  "vwap_reversion",
  "grid",
  "dca",
];
const link = id => `#/backtests/${encodeURIComponent(id)}`;

export async function show(here) {
  const [id, first, second] = here.words;
  if (id === "new") return start(here, first);
  if (id === "compare" && first && second) return compare(here, first, second);
  return id && id !== "compare" ? one(here, id) : all(here);
}

async function all(here) {
  const list = table({
    label: "Backtests",
    height: 520,
    open: row => {
      location.hash = link(row.id);
    },
    none: "No backtest yet: start one.",
    columns: [
      {
        title: "Name",
        width: "minmax(150px, 2fr)",
        text: row => row.name,
        node: row => h("a", {href: link(row.id), tabindex: -1}, row.name || row.id),
      },
      {title: "State", width: "100px", text: row => row.status, node: row => tag(row.status)},
      {
        title: "Verdict",
        width: "120px",
        text: row => row.verdict ?? "",
        node: row => (row.verdict ? tag(row.verdict) : null),
      },
      {
        title: "Return",
        width: "90px",
        right: true,
        text: row => percent(row.totalReturnPercent),
        sort: row => row.totalReturnPercent,
        kind: row => (row.totalReturnPercent > 0 ? "gain" : "loss"),
      },
      {title: "Sharpe", width: "70px", right: true, text: row => number(row.sharpeRatio), sort: row => row.sharpeRatio},
      {
        title: "Drawdown",
        width: "90px",
        right: true,
        text: row => (row.maxDrawdownPercent === null ? "" : `${number(row.maxDrawdownPercent)} %`),
        sort: row => row.maxDrawdownPercent,
      },
      {title: "Trades", width: "70px", right: true, text: row => whole(row.totalTrades), sort: row => row.totalTrades},
      {title: "Series", width: "minmax(110px, 1fr)", text: row => `${row.symbols.join(", ")} ${row.timeframe}`},
      {title: "Made", width: "150px", text: row => when(row.createdAt), sort: row => row.createdAt},
      {
        title: "Done",
        width: "60px",
        right: true,
        text: row => `${Math.floor(row.progress)} %`,
        sort: row => row.progress,
      },
      {title: "Id", width: "90px", text: row => row.id},
    ],
  });
  const pair = h("div", {class: "bar"});
  here.node.append(
    heading(
      "Backtests",
      pair,
      h(
        "button",
        {
          onclick: () => {
            location.hash = "#/backtests/new";
          },
        },
        "New backtest",
      ),
    ),
    list.node,
  );
  const update = here.attempt(async () => {
    const found = await here.client.call("backtest:list", {limit: 10_000});
    list.show(found);
    const ended = found
      .filter(each => each.status === "completed")
      .slice(0, 500)
      .map(each => [each.id, `${each.name} (${each.id})`]);
    if (ended.length < 2 || pair.contains(document.activeElement)) return;
    const one = choice(ended, ended[1][0], {"aria-label": "First to compare"}),
      other = choice(ended, ended[0][0], {"aria-label": "Second to compare"});
    pair.replaceChildren(
      one,
      other,
      h(
        "button",
        {
          class: "quiet",
          onclick: () => {
            location.hash = `#/backtests/compare/${encodeURIComponent(one.value)}/${encodeURIComponent(other.value)}`;
          },
        },
        "Compare",
      ),
    );
  });
  here.feed.follow(here, ["backtest"], update);
  await update();
}

// A new one.

/** again: id of a backtest whose configuration is to be begun with. */
async function start(here, again) {
  const [series, strategies] = await Promise.all([
    here.client.call("data:symbols"),
    here.client.call("strategies:list"),
  ]);
  const traded = series.filter(each => ["bars", "trades", "agg_trades"].includes(each.stream));
  here.node.append(heading("New backtest", h("a", {href: "#/backtests"}, "All backtests")));
  if (!traded.length) {
    here.node.append(
      empty(
        "There are no bars or trades to run on. Import some: ",
        "$ atlasd import bars FILE --symbol SPY --timeframe 1Hour",
      ),
    );
    return;
  }
  const text = h("textarea", {spellcheck: "false", "aria-label": "Configuration as JSON", style: {minHeight: "420px"}});
  const form = fields(traded, strategies, config => {
    text.value = JSON.stringify(config, null, 2);
  });
  const name = h("input", {type: "text", placeholder: "the strategy's", autocomplete: "off", maxlength: 200});
  const submit = here.attempt(async () => {
    const answer = await here.client.call("backtest:run", {config: JSON.parse(text.value), name: name.value || null});
    location.hash = link(answer.id);
  });
  here.node.append(
    h(
      "div",
      {class: "grid"},
      card(
        "By form",
        form.node,
        h(
          "p",
          {class: "soft small"},
          "The form writes the configuration beside it; docs/backtest-config.md describes every field.",
        ),
      ),
      card(
        "As JSON",
        text,
        h("div", {class: "bar"}),
        h("div", {class: "fields"}, field("Name", name), h("button", {onclick: submit}, "Start")),
      ),
    ),
  );
  if (again)
    text.value = JSON.stringify(
      (await here.client.get(`/api/v1/backtest/${encodeURIComponent(again)}`)).config,
      null,
      2,
    );
  else form.write();
}

function fields(series, strategies, told) {
  const symbols = [...new Set(series.map(each => each.symbol))];
  const day = ms => new Date(ms).toISOString().slice(0, 10);
  const symbol = choice(symbols, symbols[0]),
    timeframe = choice(
      Object.entries(SHORT).map(([name, short]) => [short, name]),
      "1h",
    );
  const start = h("input", {type: "date"}),
    end = h("input", {type: "date"});
  const capital = h("input", {type: "number", min: 1, step: "any", value: 10_000}),
    commission = h("input", {type: "number", min: 0, step: "any", value: 0.001});
  const model = choice(MODELS, MODELS[0]);
  const strategy = choice(
    [
      ...TEMPLATES.map(each => [`template ${each}`, `${each} (template)`]),
      ...strategies.map(each => [`id ${each.id}`, `${each.id} ${each.display_name}`]),
    ],
    "template momentum",
  );
  const side = choice(
    ["", "long", "short", "both"].map(each => [each, each || "as it is"]),
    "",
  );
  const validates = h("input", {type: "checkbox", checked: true});

  function range() {
    const found = series.filter(each => each.symbol === symbol.value);
    start.value = day(Math.min(...found.map(each => each.first)));
    end.value = day(Math.max(...found.map(each => each.last)));
    const bars = found.find(each => each.timeframe);
    if (bars) timeframe.value = SHORT[bars.timeframe];
  }

  function write() {
    const [way, which] = strategy.value.split(" ");
    told({
      strategy: {
        ...(way === "id" ? {id: Number(which)} : {template: which}),
        ...(side.value ? {side: side.value} : {}),
      },
      backtest: {
        symbols: [symbol.value],
        timeframe: timeframe.value,
        startDate: start.value,
        endDate: end.value,
        initialCapital: Number(capital.value),
        commission: Number(commission.value),
        slippageModel: model.value,
      },
      ...(validates.checked ? {validation: {monteCarlo: {enabled: true, iterations: 1000}}} : {}),
    });
  }
  range();
  symbol.addEventListener("change", range);
  const node = h(
    "form",
    {onchange: write, onsubmit: event => event.preventDefault()},
    h(
      "div",
      {class: "fields"},
      field("Strategy", strategy),
      field("Side", side),
      field("Symbol", symbol),
      field("Timeframe", timeframe),
      field("First day", start),
      field("Last day", end),
      field("Capital", capital),
      field("Commission (fraction)", commission),
      field("Slippage", model),
      h("label", {class: "check"}, validates, "Monte Carlo"),
    ),
  );
  return {node, write};
}
