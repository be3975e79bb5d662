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
    const components = Object.entries(health.components);
    const delay = health.components.event_loop.figures.lag_p99_ms;
    keep(memory, status.memoryUsage);
    keep(lag, delay);
    const troubled = components.filter(([, each]) => each.status !== "ok").map(([name]) => named(name));
    figures.replaceChildren(
      figure(
        "Health",
        h("span", {class: `state ${health.status}`}, health.status),
        troubled.join(", ") || "all is well",
      ),
      figure("Up for", span(1000 * status.uptime), `release ${status.version}`),
      withLine(figure("Memory", bytes(status.memoryUsage), "all processes"), memory),
      withLine(figure("Loop lag", `${number(delay, 1)} ms`, "one in a hundred waits longer"), lag),
      figure("Jobs", whole(total(health.jobs, "running")), `${whole(total(health.jobs, "queued"))} queued`),
      figure("Stored rows", whole(status.dataPointsLoaded), "bars and ticks"),
    );
    parts.replaceChildren(
      plain(
        ["", "State", "Why, and what to do"],
        components.map(([name, each]) => [
          named(name),
          h("span", {class: `state ${each.status}`}, each.status),
          [each.why, each.remedy].filter(Boolean).join(": ") || h("span", {class: "soft small"}, figuresOf(each)),
        ]),
      ),
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

const named = part => part.replaceAll("_", " ");

const total = (jobs, state) => Object.values(jobs).reduce((sum, each) => sum + each[state], 0);

/** What a component was judged by, each figure in the unit that its name ends with. */
function figuresOf({figures}) {
  const words = Object.entries(figures).map(([name, value]) => {
    if (name.endsWith("_bytes")) return `${named(name.slice(0, -6))} ${bytes(value)}`;
    if (name.endsWith("_ms")) return `${named(name.slice(0, -3))} ${number(value, 1)} ms`;
    return `${named(name)} ${whole(value)}`;
  });
  return words.join(", ");
}

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
