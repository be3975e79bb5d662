// API: every method of the protocol, what it takes and answers, and a place to try it that shows the frames.
import {card, empty, h, heading, number, plain, tag} from "./dom.js";

export async function show(here) {
  const schema = await here.client.get("/api/v1/schema.json");
  const names = Object.keys(schema.methods);
  const [name] = here.words;
  const filter = h("input", {
    type: "search",
    placeholder: "Filter methods",
    "aria-label": "Filter methods",
    oninput: draw,
  });
  const list = h("div", {class: "methods"}),
    detail = h("div", {});
  here.node.append(
    heading("API"),
    h(
      "p",
      {class: "soft"},
      "The methods go over the WebSocket at ",
      h("code", {}, "/ws"),
      " and as ",
      h("code", {}, "POST /api/v1/rpc/{method}"),
      "; ",
      h("code", {}, "/api/v1/openapi.json"),
      " and ",
      h("code", {}, "/api/v1/schema.json"),
      " describe them for programs.",
    ),
    h("div", {class: "aside"}, card(null, filter, h("div", {class: "bar"}), list), detail),
  );

  function draw() {
    const words = filter.value.toLowerCase();
    const shown = names.filter(each => `${each} ${schema.methods[each].summary}`.toLowerCase().includes(words));
    list.replaceChildren(
      ...shown.map(each =>
        h(
          "a",
          {
            href: `#/api/${each}`,
            class: schema.methods[each]["x-available"] ? "" : "later",
            "aria-current": each === name ? "true" : null,
          },
          each,
        ),
      ),
    );
  }
  draw();
  list.querySelector("[aria-current]")?.scrollIntoView({block: "nearest"});
  detail.append(
    names.includes(name) ? method(here, schema, name) : card(null, empty("Choose a method.")),
    card("Events", events(schema)),
  );
}

function method(here, schema, name) {
  const {summary, request, answer, errors, ...more} = schema.methods[name];
  const fields = resolved(schema, request);
  const text = h("textarea", {
    "aria-label": "Payload",
    spellcheck: "false",
    value: JSON.stringify(example(schema, fields), null, 2),
  });
  const sent = h("pre", {}),
    got = h("pre", {}),
    took = h("span", {class: "soft small", role: "status"});
  const isAvailable = more["x-available"];
  const run = here.attempt(async () => {
    const payload = JSON.parse(text.value || "{}");
    const began = performance.now();
    const listen = ({detail: {sent: mine, frame}}) => {
      if (mine && frame.method === name) {
        sent.textContent = JSON.stringify(frame, null, 2);
        listen.id = frame.id;
      }
      if (!mine && frame.id === listen.id) got.textContent = shortened(JSON.stringify(frame, null, 2));
    };
    here.client.addEventListener("frame", listen);
    got.textContent = "\u2026";
    await here.client
      .call(name, payload)
      .catch(() => null)
      .finally(() => here.client.removeEventListener("frame", listen));
    took.textContent = `answered in ${number(performance.now() - began, 1)} ms`;
  });
  return card(
    name,
    h(
      "p",
      {},
      summary,
      " ",
      isAvailable ? "" : tag("not available yet"),
      more["x-starts-job"] ? tag("starts a job") : "",
    ),
    h("h3", {}, "Request"),
    described(schema, fields),
    h("h3", {}, "Answers"),
    h("p", {}, h("code", {}, kind(schema, answer))),
    h("h3", {}, "Try it"),
    text,
    h("div", {class: "bar"}, h("button", {onclick: run}, "Send"), took),
    h("div", {class: "grid"}, h("div", {}, h("h3", {}, "Sent"), sent), h("div", {}, h("h3", {}, "Received"), got)),
    h("details", {}, h("summary", {}, "Errors it may answer"), h("p", {class: "mono"}, errors.join(", "))),
    h(
      "details",
      {},
      h("summary", {}, "Schema of the answer"),
      h("pre", {}, JSON.stringify(resolved(schema, answer), null, 2)),
    ),
  );
}

const MOST_SHOWN = 20_000;
const shortened = text =>
  text.length > MOST_SHOWN ? `${text.slice(0, MOST_SHOWN)}\n\u2026 ${number(text.length, 0)} characters in all` : text;

function resolved(schema, type) {
  if (type.items?.$ref) return {...type, items: resolved(schema, type.items)};
  return type.$ref ? schema.$defs[type.$ref.split("/").pop()] : type;
}

function kind(schema, type) {
  if (type.$ref) return type.$ref.split("/").pop();
  if (type.anyOf) return type.anyOf.map(each => kind(schema, each)).join(" or ");
  if (type.enum) return type.enum.map(each => JSON.stringify(each)).join(" | ");
  if (type.type === "array") return `list of ${type.items ? kind(schema, type.items) : "anything"}`;
  const bounds = [
    type.minimum !== undefined && `\u2265 ${type.minimum}`,
    type.maximum !== undefined && `\u2264 ${type.maximum}`,
  ]
    .filter(Boolean)
    .join(", ");
  return `${type.type ?? "anything"}${bounds ? ` (${bounds})` : ""}`;
}

function described(schema, fields) {
  const rows = Object.entries(fields.properties ?? {});
  const words = fields.description ? h("p", {class: "small soft"}, fields.description) : "";
  if (!rows.length) return h("p", {class: "soft"}, "No fields.");
  return h(
    "div",
    {},
    words,
    plain(
      ["Field", "Type", "Without it"],
      rows.map(([name, type]) => [
        h("code", {}, name),
        kind(schema, type),
        fields.required?.includes(name) ? "needed" : "default" in type ? JSON.stringify(type.default) : "",
      ]),
    ),
  );
}

/** A payload to begin with: what is needed, by its kind. */
function example(schema, fields) {
  const made = {};
  for (const name of fields.required ?? []) {
    const type = resolved(schema, fields.properties[name]);
    made[name] =
      type.enum?.[0] ?? {string: "", integer: type.minimum ?? 0, number: 0, boolean: false, array: []}[type.type] ?? {};
  }
  return made;
}

const events = schema =>
  plain(
    ["Event", "What", "Fields"],
    Object.entries(schema.events).map(([name, each]) => [
      h("code", {}, name),
      [each.summary, " ", each["x-available"] ? tag(each["x-fact"] ? "fact" : "progress") : tag("not available yet")],
      h("span", {class: "small soft"}, Object.keys(resolved(schema, each.payload).properties ?? {}).join(", ")),
    ]),
  );
