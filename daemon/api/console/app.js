// The page: who may see it, which view it shows, and the one place where errors are told.
import {Client, Failure, signIn} from "./client.js";
import {recolor} from "./charts.js";
import {card, h} from "./dom.js";
import {Events} from "./feed.js";
import * as api from "./explorer.js";
import * as backtests from "./backtests.js";
import * as data from "./data.js";
import * as events from "./events.js";
import * as overview from "./overview.js";
import * as probe from "./probe.js";
import * as settings from "./settings.js";

const VIEWS = {
  overview: ["Overview", overview],
  data: ["Data", data],
  probe: ["Probe", probe],
  backtests: ["Backtests", backtests],
  events: ["Events", events],
  api: ["API", api],
  settings: ["Settings", settings],
};
const SESSION = "atlas.session";
const THEME = "atlas.theme";
const THEMES = ["auto", "dark", "light"];
const REMEDIES = {
  DAEMON_UNREACHABLE: "Start it with `atlasd serve`; this page goes on by itself.",
  DISCONNECTED: "Nothing is lost: runs go on, and what was missed is told again.",
  TIMEOUT: "Look at the Overview, and at `atlasd logs`.",
  INTERNAL: "`atlasd logs` has the details.",
  UNAUTHORIZED: "Run `atlasd open` for a new session.",
};

const place = id => document.getElementById(id);
let leave = null;
let client = null;
let feed = null;

// Errors.

function tell(error) {
  const code = error instanceof Failure ? error.code : "PAGE";
  place("banner").replaceChildren(
    h(
      "div",
      {},
      h("b", {}, code),
      " ",
      error.message,
      h("p", {class: "small soft"}, REMEDIES[code] ?? "docs/errors.md lists every code and what to do."),
    ),
    h("button", {class: "quiet", onclick: hush}, "Close"),
  );
  place("banner").hidden = false;
}

function hush() {
  place("banner").hidden = true;
}

// Views.

/** What a view gets: its client, its place, words of the address, and ways to clean up and to tell errors. */
async function show() {
  const [name, ...words] = location.hash.replace(/^#\/?/, "").split("/").filter(Boolean).map(decodeURIComponent);
  const [title, view] = VIEWS[name] ?? VIEWS.overview;
  leave?.();
  hush();
  const ends = [];
  const node = h("div", {});
  const here = {
    client,
    feed,
    node,
    words: name in VIEWS ? words : [],
    fail: error => node.isConnected && tell(error),
    attempt:
      work =>
      async (...given) => {
        try {
          hush();
          return await work(...given);
        } catch (error) {
          here.fail(error);
          return null;
        }
      },
    on: (target, event, listener) => {
      target.addEventListener(event, listener);
      ends.push(() => target.removeEventListener(event, listener));
    },
    every: (ms, work) => {
      const timer = setInterval(() => !document.hidden && work(), ms);
      ends.push(() => clearInterval(timer));
    },
  };
  leave = () => ends.splice(0).forEach(end => end());
  place("view").replaceChildren(node);
  document.title = `${title} \u2013 Atlas`;
  for (const link of place("nav").children) {
    if (link.dataset.view === (name in VIEWS ? name : "overview")) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  try {
    await view.show(here);
  } catch (error) {
    here.fail(error);
  }
}

// Signing in.

function gate(...words) {
  leave?.();
  client?.close();
  client = null;
  sessionStorage.removeItem(SESSION);
  place("nav").hidden = true;
  connection("closed", "signed out");
  place("view").replaceChildren(
    h(
      "div",
      {class: "gate"},
      card(
        "This page needs a way in",
        words,
        h("p", {}, "In a terminal of this machine:"),
        h("pre", {}, "atlasd open"),
        h(
          "p",
          {class: "soft small"},
          "It opens this page with a code that works once, within a minute. Other programs send the token that ",
          h("code", {}, "atlasd token"),
          " prints.",
        ),
      ),
    ),
  );
}

function connection(state, words) {
  place("connection").className = `connection ${state}`;
  place("connection").textContent = words;
}

async function token() {
  const code = location.hash.match(/^#code=(.+)$/)?.[1];
  if (!code) return sessionStorage.getItem(SESSION);
  history.replaceState(null, "", location.pathname);
  const session = await signIn(decodeURIComponent(code));
  sessionStorage.setItem(SESSION, session);
  return session;
}

async function begin() {
  let session = null;
  try {
    session = await token();
  } catch (error) {
    gate(h("p", {}, h("b", {}, error.code ?? "PAGE"), " ", error.message));
    return;
  }
  if (!session) {
    gate();
    return;
  }
  client = new Client(session);
  feed = new Events(client);
  client.addEventListener("state", ({detail}) =>
    connection(detail, {open: "connected", waiting: "reconnecting\u2026", closed: "signed out"}[detail]),
  );
  client.addEventListener("signedout", () =>
    gate(h("p", {}, "The session has ended, or the daemon was started anew.")),
  );
  client.addEventListener("gap", () => {
    if (feed.began) show();
  });
  connection("waiting", "connecting\u2026");
  client.connect();
  place("nav").hidden = false;
  window.addEventListener("hashchange", entered);
  await show();
}

/** A code may come while the page is open, too: `atlasd open` again. */
function entered() {
  if (location.hash.startsWith("#code=")) location.reload();
  else if (client) show();
}

// Light and dark.

function paint() {
  const theme = localStorage.getItem(THEME) ?? "auto";
  if (theme === "auto") document.documentElement.removeAttribute("data-theme");
  else document.documentElement.dataset.theme = theme;
  place("theme").textContent = {auto: "Theme: system", dark: "Theme: dark", light: "Theme: light"}[theme];
  recolor();
}

place("theme").addEventListener("click", () => {
  const now = localStorage.getItem(THEME) ?? "auto";
  localStorage.setItem(THEME, THEMES[(THEMES.indexOf(now) + 1) % THEMES.length]);
  paint();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
place("skip").addEventListener("click", () => place("main").focus());
place("nav").append(
  ...Object.entries(VIEWS).map(([name, [title]]) => h("a", {href: `#/${name}`, "data-view": name}, title)),
);
paint();
begin();
