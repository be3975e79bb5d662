"use strict";
// What the charts of every page share. Names that users gave pass through `escaped`: Plotly reads some HTML in its texts.
const CONFIG = {displayModeBar: false, responsive: false};
const color = name => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
const escaped = text => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
function signed(value, digits) {
  const size = Math.abs(value).toFixed(digits);
  return (Number(size) === 0 ? "" : value > 0 ? "+" : "\u2212") + size;
}
const font = size => ({family: getComputedStyle(document.body).fontFamily, size: size, color: color("ink")});
