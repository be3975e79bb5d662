// Probe: start a run, watch it, and see which combinations can be told from luck.
import {axis, chart, color, escaped} from "./charts.js";
import {
  DASH,
  card,
  choice,
  empty,
  field,
  figure,
  h,
  heading,
  moment,
  number,
  percent,
  picked,
  span,
  tag,
  whole,
} from "./dom.js";
import {groups} from "./groups.js";
import {TIMEFRAMES} from "./market.js";
import {table} from "./table.js";

const SHADES = {loss: "loss", "loss maybe": "loss-tint", "": "zero", "gain maybe": "gain-tint", gain: "gain"};
const MARKS = Object.keys(SHADES);
const link = run => `#/probe/${encodeURIComponent(run)}`;
const done = run => (100 * run.progress.completed) / Math.max(run.progress.total, 1);
const isAtWork = run => ["queued", "running"].includes(run.status);

export async function show(here) {
  const [run] = here.words;
  return run ? one(here, run) : all(here);
}

// The runs, and a new one.

async function all(here) {
  const series = await here.client.call("data:symbols");
  const symbols = [
    ...new Set(series.filter(each => ["bars", "trades", "agg_trades"].includes(each.stream)).map(each => each.symbol)),
  ];
  const runs = table({
    label: "Runs",
    height: 420,
    open: row => {
      location.hash = link(row.run_id);
    },
    none: "No run yet.",
    columns: [
      {
        title: "Run",
        width: "minmax(120px, 2fr)",
        text: row => row.run_id,
        node: row => h("a", {href: link(row.run_id), tabindex: -1}, row.run_id),
      },
      {title: "Started", width: "150px", text: row => moment(row.created_at)},
      {title: "State", width: "100px", text: row => row.status, node: row => tag(row.status)},
      {title: "Done", width: "80px", right: true, text: row => `${Math.floor(done(row))} %`, sort: done},
      {
        title: "Combinations",
        width: "110px",
        right: true,
        text: row => whole(row.progress.total),
        sort: row => row.progress.total,
      },
      {
        title: "Series",
        width: "minmax(120px, 3fr)",
        text: row => `${row.symbols.join(", ")} \u00b7 ${row.timeframes.join(", ")}`,
      },
    ],
  });
  here.node.append(
    heading("Probe"),
    h(
      "p",
      {class: "soft"},
      "Every strategy on every series, without costs: does a rule select better bars than chance?",
    ),
    symbols.length
      ? card("A new run", form(here, symbols))
      : empty("There are no bars to probe. Import some: ", "$ atlasd import bars FILE --symbol SPY --timeframe 1Hour"),
    card("Runs", runs.node),
  );
  const list = here.attempt(async () => runs.show((await here.client.get("/api/v1/runs?limit=1000")).results));
  here.feed.follow(here, ["probe"], list);
  await list();
}

function form(here, symbols) {
  const which = choice(symbols, symbols.slice(0, 1), {
    multiple: true,
    size: Math.min(6, symbols.length),
    required: true,
  });
  const frames = Object.keys(TIMEFRAMES).map(each =>
    h("input", {type: "checkbox", value: each, checked: each === "1Hour"}),
  );
  const start = h("input", {type: "date"}),
    end = h("input", {type: "date"}),
    name = h("input", {type: "text", placeholder: "made up", maxlength: 50, autocomplete: "off"});
  const keeps = h("input", {type: "checkbox", checked: true});
  const submit = here.attempt(async () => {
    const answer = await here.client.call("probe:run", {
      symbols: picked(which),
      timeframes: frames.filter(each => each.checked).map(each => each.value),
      start_date: start.value || null,
      end_date: end.value || null,
      run_id: name.value || null,
      persist_trades: keeps.checked,
    });
    location.hash = link(answer.run_id);
  });
  return h(
    "form",
    {
      onsubmit: event => {
        event.preventDefault();
        submit();
      },
    },
    h(
      "div",
      {class: "fields"},
      field("Symbols", which),
      h(
        "fieldset",
        {},
        h("legend", {}, "Timeframes"),
        h(
          "div",
          {class: "checks"},
          frames.map(each => h("label", {class: "check"}, each, each.value)),
        ),
      ),
      field("First day", start),
      field("Last day", end),
      field("Name", name),
      h("label", {class: "check"}, keeps, "keep every trade"),
    ),
    h("button", {type: "submit"}, "Start"),
  );
}

// One run.

async function one(here, id) {
  const state = h("div", {}),
    found = h("div", {});
  let wasAtWork = null;
  here.node.append(heading(`Run ${id}`, h("a", {href: "#/probe"}, "All runs")), state, found);
  const update = here.attempt(async () => {
    const run = await here.client.call("probe:status", {runId: id});
    const cancel = h("button", {class: "quiet", onclick: here.attempt(() => remove(here, id))}, "Cancel");
    state.replaceChildren(
      h(
        "div",
        {class: "figures"},
        figure("State", tag(run.status), run.error?.message ?? ""),
        figure("Combinations", whole(run.progress.completed), `of ${whole(run.progress.total)}`),
        figure(
          "Took",
          span(1000 * run.progress.elapsed_seconds),
          run.progress.seconds_left === null ? "" : `${span(1000 * run.progress.seconds_left)} left`,
        ),
        figure("Trades", run.summary ? whole(run.summary.total_trades) : DASH),
        figure("Series", run.symbols.length, run.timeframes.join(", ")),
      ),
      isAtWork(run)
        ? card(
            "Progress",
            h("div", {class: "bar"}, h("progress", {max: 100, value: done(run), "aria-label": "Progress"}), cancel),
          )
        : "",
      run.notes.length
        ? card(
            "To be read beside the results",
            h(
              "ul",
              {},
              run.notes.map(each => h("li", {}, each)),
            ),
          )
        : "",
    );
    if (wasAtWork !== isAtWork(run)) await results(here, run, found);
    wasAtWork = isAtWork(run);
  });
  here.feed.follow(here, ["probe"], update, {id, pause: 250});
  await update();
}

async function remove(here, id) {
  await here.client.remove(`/api/v1/runs/${encodeURIComponent(id)}`);
}

async function results(here, run, place) {
  const symbols = run.symbols;
  const chosen = choice(symbols, symbols[0], {"aria-label": "Symbol", onchange: () => load()});
  const map = h("div", {class: "chart", role: "img", "aria-label": "Heat map; the table below has the same figures"});
  const untested = h("input", {type: "checkbox", onchange: () => load()});
  const note = h("p", {class: "small soft"}),
    rows = h("div", {}),
    detail = h("div", {id: "combination"});
  const load = here.attempt(async () => {
    const found = await here.client.call("probe:combinations", {runId: run.run_id, symbol: chosen.value});
    if (!found.combinations.length) {
      place.replaceChildren(
        empty(isAtWork(run) ? "Nothing is stored yet: results come as they are made." : "This run has stored nothing."),
      );
      return;
    }
    note.textContent = found.note;
    rows.replaceChildren(combinations(found.combinations, each => groups(here, run, each, detail)).node);
    const tested = new Set(found.combinations.filter(each => each.p_adjusted !== null).map(each => each.strategy_id));
    const mapped = found.combinations.filter(each => untested.checked || tested.has(each.strategy_id));
    map.hidden = !mapped.length;
    if (mapped.length) await heat(map, mapped, each => groups(here, run, each, detail));
  });
  place.replaceChildren(
    card(
      null,
      h(
        "div",
        {class: "bar"},
        h("h2", {}, "What can be told from luck"),
        chosen,
        h("label", {class: "check"}, untested, "also strategies that traded too little"),
      ),
      map,
      legend(),
      h("details", {}, h("summary", {}, "What luck alone would give"), note),
    ),
    card("Combinations", rows),
    detail,
  );
  await load();
}

const legend = () =>
  h(
    "div",
    {class: "legend"},
    [
      ["gain", "a gain, told from luck (corrected p \u2264 5 %)"],
      ["gain-tint", "a gain worth a second look (\u2264 10 % may be luck)"],
      ["zero", "no more than luck"],
      ["loss-tint", "a loss worth a second look"],
      ["loss", "a loss, told from luck"],
      ["none", "not tested: fewer than 10 trades"],
    ].map(([name, words]) => h("span", {}, h("i", {style: {background: `var(--${name})`}}), words)),
    h("span", {}, "The number is z, the mean over its error. A loss is no gain for the opposite trade."),
  );

/** Strategies down, timeframe and profile across. Colours say what may be believed, never how large a number looks. */
function heat(node, combinations, open) {
  const across = [...new Set(combinations.map(each => `${each.timeframe} ${each.risk_profile}`))];
  const down = [...new Map(combinations.map(each => [each.strategy_id, each.strategy_name])).entries()].sort(
    ([one], [other]) => one - other,
  );
  const at = new Map(combinations.map(each => [`${each.strategy_id} ${each.timeframe} ${each.risk_profile}`, each]));
  const cells = down.map(([id]) => across.map(name => at.get(`${id} ${name}`) ?? null));
  const words = each =>
    each === null
      ? "not run"
      : `${escaped(each.strategy_name)}<br>${escaped(each.timeframe)} ${escaped(each.risk_profile)}<br>${whole(each.trades)} trades, mean ${percent(each.pnl_mean === null ? null : 100 * each.pnl_mean, 3)}` +
        `<br>z ${number(each.z)}, corrected p ${number(each.p_adjusted, 4)}<br>share of luck ${number(each.false_discovery, 3)}`;
  const label = each => (each === null || each.p_adjusted === null ? "" : number(each.z, 1));
  return chart(
    node,
    () => ({
      traces: [
        {
          type: "heatmap",
          x: across.map(escaped),
          y: down.map(([id, name]) => `${id} ${escaped(name)}`),
          xgap: 1,
          ygap: 1,
          showscale: false,
          zmin: -0.5,
          zmax: 5.5,
          z: cells.map(row =>
            row.map(each => (each === null ? null : each.p_adjusted === null ? 5 : MARKS.indexOf(each.mark))),
          ),
          colorscale: [...MARKS.map(each => SHADES[each]), "none"].flatMap((name, place) => [
            [place / 6, color(name)],
            [(place + 1) / 6, color(name)],
          ]),
          text: cells.map(row => row.map(label)),
          texttemplate: "%{text}",
          textfont: {size: 10.5},
          customdata: cells.map(row => row.map(words)),
          hovertemplate: "%{customdata}<extra></extra>",
        },
      ],
      layout: {
        height: 70 + 17 * down.length,
        margin: {l: 10, r: 10, t: 34, b: 8},
        xaxis: axis({type: "category", side: "top", fixedrange: true, showgrid: false, ticks: ""}),
        yaxis: axis({
          type: "category",
          autorange: "reversed",
          fixedrange: true,
          showgrid: false,
          dtick: 1,
          ticks: "",
          tickfont: {size: 11},
        }),
        dragmode: false,
      },
    }),
    {
      clicked: point => {
        const [row, column] = point.pointIndex;
        if (cells[row][column]) open(cells[row][column]);
      },
    },
  );
}

const combinations = (rows, open) =>
  table({
    label: "Combinations",
    rows,
    open,
    height: 380,
    columns: [
      {
        title: "Strategy",
        width: "minmax(170px, 2fr)",
        text: row => `${row.strategy_id} ${row.strategy_name}`,
        sort: row => row.strategy_id,
      },
      {title: "Timeframe", width: "90px", text: row => row.timeframe, sort: row => TIMEFRAMES[row.timeframe]},
      {title: "Profile", width: "90px", text: row => row.risk_profile},
      {title: "Trades", width: "80px", right: true, text: row => whole(row.trades), sort: row => row.trades},
      {
        title: "Mean P&L",
        width: "100px",
        right: true,
        text: row => percent(row.pnl_mean === null ? null : 100 * row.pnl_mean, 3),
        sort: row => row.pnl_mean,
      },
      {
        title: "Won",
        width: "70px",
        right: true,
        text: row => (row.win_rate === null ? DASH : `${number(100 * row.win_rate, 1)} %`),
        sort: row => row.win_rate,
      },
      {
        title: "z",
        width: "70px",
        right: true,
        text: row => number(row.z),
        sort: row => row.z,
        kind: row => row.mark.split(" ")[0],
      },
      {
        title: "p, corrected",
        width: "100px",
        right: true,
        text: row => number(row.p_adjusted, 4),
        sort: row => row.p_adjusted,
      },
      {
        title: "Share of luck",
        width: "100px",
        right: true,
        text: row => number(row.false_discovery, 3),
        sort: row => row.false_discovery,
      },
    ],
  });
