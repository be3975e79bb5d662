// Settings: the configuration as it was loaded, and where each value came from.
import {card, h, heading, plain, tag} from "./dom.js";

export async function show(here) {
  const found = await here.client.call("config:get");
  const filter = h("input", {type: "search", placeholder: "Filter", "aria-label": "Filter settings", oninput: draw});
  const changed = h("input", {type: "checkbox", onchange: draw});
  const place = h("div", {});
  here.node.append(
    heading("Settings", h("label", {class: "check"}, changed, "only what is not as shipped"), filter),
    h(
      "p",
      {class: "soft"},
      "As the daemon loaded them; a change of config.toml counts from its next start. Secrets are not shown.",
    ),
    place,
  );

  function draw() {
    const words = filter.value.toLowerCase();
    const shown = found.filter(
      each =>
        (!changed.checked || each.origin !== "default") &&
        (!words ||
          `${each.key} ${written(each.value)} ${each.origin} ${each.source ?? ""}`.toLowerCase().includes(words)),
    );
    const sections = grouped(shown);
    place.replaceChildren(
      ...[...sections].map(([section, rows]) =>
        card(
          `[${section}]`,
          plain(
            ["Key", "Value", "Origin", ""],
            rows.map(each => [
              each.key.slice(section.length + 1),
              h("code", {}, written(each.value)),
              tag(each.origin),
              h("span", {class: "small soft"}, each.source ?? ""),
            ]),
            [],
            "fixed",
          ),
        ),
      ),
    );
    if (!shown.length) place.append(h("p", {class: "empty"}, "No setting is like that."));
  }
  draw();
}

function grouped(rows) {
  const found = new Map();
  for (const each of rows) {
    const [section] = each.key.split(".");
    if (!found.has(section)) found.set(section, []);
    found.get(section).push(each);
  }
  return found;
}

const written = value => (value === "" ? "(empty)" : typeof value === "string" ? value : JSON.stringify(value));
