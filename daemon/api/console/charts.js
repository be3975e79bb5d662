// Charts by plotly.js, SVG traces only: those that draw by WebGL would need a script made from text, which no page of ours
// may run. Points are decimated by the daemon; a chart is drawn again when the colours change, and measured as it is.

let loading = null;
const charts = new Map();
const heard = new WeakSet();
const probe = document.createElement("i");
probe.hidden = true;

/** How long the charts took to be drawn, ms, the last ones. */
export const redraws = [];

function library() {
  loading ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = "/console/plotly.min.js";
    script.onload = () => resolve(window.Plotly);
    script.onerror = () => {
      loading = null;
      reject(new Error("plotly.min.js cannot be loaded: is the daemon still running?"));
    };
    document.head.append(script);
  });
  return loading;
}

/** Plotly reads some HTML in its texts: names pass through here. */
export const escaped = text => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

/** The value of a colour of console.css, as light or dark as it is now. */
export function color(name) {
  if (!probe.isConnected) document.body.append(probe);
  probe.style.color = `var(--${name})`;
  return getComputedStyle(probe).color;
}

/** Unix ms of one end of an axis, which Plotly tells as a text in UTC or a number. */
export const time = end => (typeof end === "number" ? end : Date.parse(`${end.replace(" ", "T")}Z`));

export const axis = (more = {}) => ({
  exponentformat: "none",
  separatethousands: true,
  gridcolor: color("line"),
  linecolor: color("line"),
  zeroline: false,
  automargin: true,
  ...more,
});

function frame(layout) {
  return {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    margin: {l: 56, r: 14, t: 10, b: 30},
    showlegend: false,
    font: {family: getComputedStyle(document.body).fontFamily, size: 12, color: color("ink")},
    dragmode: "pan",
    hoverlabel: {
      bgcolor: color("card"),
      bordercolor: color("line"),
      font: {size: 12.5, color: color("ink")},
      align: "left",
    },
    ...layout,
  };
}

/**
 * Draw into an element. build(): {traces, layout}, with colours as they are when it is called. zoomed(start, end): told
 * the range of time that the user moved to, or nothing for all of it. clicked(point).
 */
export async function chart(node, build, {zoomed = null, clicked = null} = {}) {
  const mine = {build, zoomed, clicked};
  charts.set(node, mine);
  const plotly = await library();
  if (charts.get(node) !== mine) return;
  await drawn(plotly, node, mine);
  if (heard.has(node)) return;
  heard.add(node);
  node.on("plotly_click", event => charts.get(node)?.clicked?.(event.points[0]));
  node.on("plotly_relayout", event => moved(event, charts.get(node)?.zoomed));
}

function moved(event, zoomed) {
  if (!zoomed) return;
  if (event["xaxis.autorange"]) zoomed();
  else if ("xaxis.range[0]" in event) zoomed(time(event["xaxis.range[0]"]), time(event["xaxis.range[1]"]));
  else if (event["xaxis.range"]) zoomed(...event["xaxis.range"].map(time));
}

async function drawn(plotly, node, {build, zoomed}) {
  const began = performance.now();
  const {traces, layout} = build();
  node.style.height = `${layout.height}px`; // else it shrinks as soon as the window is resized
  const config = {displayModeBar: false, responsive: true, scrollZoom: Boolean(zoomed), doubleClick: "reset"};
  await plotly.react(node, traces, frame(layout), config);
  redraws.push(performance.now() - began);
  redraws.splice(0, redraws.length - 100);
}

/** Draw all charts that are still on the page with the colours of now. */
export async function recolor() {
  for (const node of charts.keys()) if (!node.isConnected) charts.delete(node);
  if (!charts.size) return;
  const plotly = await library();
  for (const [node, each] of charts) await drawn(plotly, node, each);
}

// What several views draw.

/** Candles with volume below, of a view's columns. */
export function candles({columns: {timestamp, open, high, low, close, volume}}) {
  const tints = close.map((each, place) => color(each >= open[place] ? "gain-tint" : "loss-tint"));
  const side = name => ({line: {color: color(name), width: 1}, fillcolor: color(name)});
  return [
    {type: "bar", x: timestamp, y: volume, yaxis: "y2", marker: {color: tints}, hoverinfo: "skip"},
    {
      type: "candlestick",
      x: timestamp,
      open,
      high,
      low,
      close,
      increasing: side("gain"),
      decreasing: side("loss"),
      name: "",
    },
  ];
}

/** Prices of ticks as lines. */
export function ticks({columns: {timestamp, ...prices}}) {
  return Object.entries(prices).map(([name, values], place) => ({
    type: "scatter",
    mode: "lines",
    x: timestamp,
    y: values,
    name,
    line: {color: color(place ? "loss" : "accent"), width: 1, shape: "hv"},
  }));
}

/** hasVolume: leaves the lower part to it. */
export const marketLayout = (height, range, hasVolume) => ({
  height,
  xaxis: axis({type: "date", anchor: hasVolume ? "y2" : "y", range, rangeslider: {visible: false}}),
  yaxis: axis({domain: [hasVolume ? 0.2 : 0, 1], side: "right"}),
  yaxis2: axis({domain: [0, 0.16], side: "right", fixedrange: true, nticks: 3, visible: hasVolume}),
  margin: {l: 12, r: 64, t: 10, b: 30},
  hovermode: "x",
});

export const curve = (name, x, y, shade, more = {}) => ({
  type: "scatter",
  mode: "lines",
  name: escaped(name),
  x,
  y,
  line: {color: color(shade), width: 1.6},
  ...more,
});
