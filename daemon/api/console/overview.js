// Overview: is the daemon well, and what is it doing.
import {
  DASH,
  bytes,
  card,
  empty,
  figure,
  h,
  heading,
  number,
  percent,
  plain,
  span,
  spark,
  tag,
  when,
  whole,
} from "./dom.js";

const KEPT = 90;
const POLL_MS = 2_000;

export async function show(here) {
  const memory = [],
    lag = [];
  const figures = h("div", {class: "figures"}),
    parts = h("div", {}),
    jobs = h("div", {}),
    feeds = h("div", {}),
    done = h("div", {});
  here.node.append(
    heading("Overview"),
    figures,
    h("div", {class: "grid"}, card("Health", parts), card("At work", jobs)),
    card("Feeds", feeds),
    card("Latest backtests", done),
  );

  async function measure() {
    const [status, health, told] = await Promise.all([
      here.client.call("backend:status"),
      here.client.get("/api/v1/health"),
      here.client.get("/api/v1/feeds"),
    ]);
    const components = Object.entries(health.components ?? {});
    const delay = loopLag(health);
    keep(memory, status.memoryUsage);
    if (delay !== null) keep(lag, delay);
    const [best] =
      health.status === "ok"
        ? ["all is well"]
        : components.filter(([, each]) => each.status !== "ok").map(([name]) => name);
    figures.replaceChildren(
      figure("Health", h("span", {class: `state ${health.status}`}, health.status), best ?? ""),
      figure("Up for", span(1000 * status.uptime), `release ${status.version}`),
      withLine(figure("Memory", bytes(status.memoryUsage), "all processes"), memory),
      withLine(
        figure("Loop lag", delay === null ? DASH : `${number(delay, 1)} ms`, "worst of a hundred, last minute"),
        lag,
      ),
      figure("Backtests", whole(status.activeBacktests), `${whole(status.queuedBacktests)} queued`),
      figure("Stored rows", whole(status.dataPointsLoaded), "bars and ticks"),
    );
    parts.replaceChildren(
      components.length
        ? plain(
            ["", "State", "Why, and what to do"],
            components.map(([name, each]) => [
              name.replaceAll("_", " "),
              h("span", {class: `state ${each.status}`}, each.status),
              explained(each),
            ]),
          )
        : h("p", {class: "soft"}, "The daemon tells no components."),
    );
    feeds.replaceChildren(
      told.results.length
        ? feedTable(told.results)
        : empty(
            "No feed is recorded. Name one in config.toml under ",
            "$ [feeds.NAME]",
            " or record by hand: ",
            "$ atlasd record binance BTCUSDT",
          ),
    );
  }

  async function list() {
    const [tests, runs, searches] = await Promise.all([
      here.client.call("backtest:list", {limit: 200}),
      here.client.get("/api/v1/runs?limit=100"),
      here.client.get("/api/v1/optimize?limit=100"),
    ]);
    const atWork = each => ["queued", "running"].includes(each.status);
    const rows = [
      ...tests.filter(atWork).map(each => job(`#/backtests/${each.id}`, "Backtest", each.name, each.progress)),
      ...searches.results.filter(atWork).map(each => job(null, "Optimisation", each.name, each.progress)),
      ...runs.results
        .filter(atWork)
        .map(each =>
          job(
            `#/probe/${each.run_id}`,
            "Probe",
            each.run_id,
            (100 * each.progress.completed) / Math.max(each.progress.total, 1),
          ),
        ),
    ];
    jobs.replaceChildren(
      ...(rows.length
        ? rows
        : [
            empty(
              "Nothing is running. Start a ",
              h("a", {href: "#/probe"}, "probe"),
              " or a ",
              h("a", {href: "#/backtests/new"}, "backtest"),
              ".",
            ),
          ]),
    );
    const ended = tests.filter(each => !atWork(each)).slice(0, 8);
    done.replaceChildren(
      ended.length
        ? plain(
            ["Name", "Ended", "State", "Return", "Verdict"],
            ended.map(each => [
              h("a", {href: `#/backtests/${each.id}`}, each.name || each.id),
              when(each.completedAt),
              tag(each.status),
              percent(each.totalReturnPercent),
              each.verdict ? tag(each.verdict) : DASH,
            ]),
            [3],
          )
        : empty("No backtest has ended yet."),
    );
  }

  const update = here.attempt(measure),
    relist = here.attempt(list);
  here.every(POLL_MS, update);
  here.feed.follow(here, ["backtest", "optimization", "probe"], relist, {pause: 500});
  await Promise.all([update(), relist()]);
}

function keep(values, value) {
  values.push(value);
  if (values.length > KEPT) values.shift();
}

function withLine(node, values) {
  if (values.length > 1) node.append(spark(values));
  return node;
}

/** Milliseconds, whichever component tells it; null where none does. */
function loopLag(health) {
  for (const each of Object.values(health.components ?? {})) {
    for (const [name, value] of Object.entries({...each, ...each.figures})) {
      if (/lag.*(p99|ms)|p99.*ms/i.test(name) && typeof value === "number") return value;
    }
  }
  return null;
}

const explained = each =>
  [each.why ?? each.reason ?? each.detail ?? each.message, each.remedy ?? each.what_to_do].filter(Boolean).join(" ") ||
  DASH;

const job = (address, kind, name, progress) =>
  h(
    "div",
    {class: "job"},
    h("span", {}, h("span", {class: "tag"}, kind), " ", address ? h("a", {href: address}, name) : name),
    h("progress", {max: 100, value: progress, "aria-label": `${kind} ${name}`}),
    h("span", {class: "small"}, `${Math.floor(progress)} %`),
  );

const feedTable = rows =>
  plain(
    ["Feed", "State", "Rows", "Reconnects", "Backfilled", "Last error"],
    rows.map(each => [
      each.name,
      h("span", {class: `state ${each.connected ? "ok" : "failed"}`}, each.connected ? "connected" : "not connected"),
      Object.entries(each.rows)
        .map(([stream, count]) => `${stream} ${whole(count)}`)
        .join(", ") || DASH,
      whole(each.reconnects),
      whole(each.backfilled_rows),
      each.last_error || DASH,
    ]),
    [3, 4],
  );
