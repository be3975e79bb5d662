"""What the HTML pages share: one style, one copy of Plotly, tables, and numbers and times as a reader wants them.

A page is one file that opens anywhere, offline, and under a content security policy that allows only what is in it.
Names come from users: whatever goes into a page is escaped here, or embedded as JSON and escaped by its script.
"""

from __future__ import annotations

from html import escape
from importlib import resources
from string import Template
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from daemon.core.market import TsNs

DASH: Final = "\N{EN DASH}"
_MINUTE_S: Final = 60
_SPOKEN_HOURS: Final = 48


def render(template: str, **parts: object) -> str:
    """Fill a template of this folder with HTML, and with the style, Plotly and drawing script of all pages."""
    from plotly.offline import get_plotlyjs

    style, drawing = _text("plotly_page.css"), _text("plotly_page.js")
    return Template(_text(template)).substitute(parts, style=style, drawing=drawing, plotly=get_plotlyjs())


def _text(name: str) -> str:
    return resources.files("daemon.research").joinpath(name).read_text(encoding="utf-8")


def embedded(value: Any) -> str:
    """Encode for a script element of type application/json; NaN and infinity become null."""
    # In a script element, `<` could end it or begin a comment; nothing else is special there.
    return msgspec.json.encode(value).decode().replace("<", "\\u003c")


def table(kind: str, headings: Iterable[str], lines: Iterable[str]) -> str:
    """Put lines of `line` under headings; kind: class that the template styles."""
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    return f'<table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>'


def line(cells: Iterable[str], kind: str = "") -> str:
    """Write a table's row."""
    return f'<tr class="{kind}">{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>'


def pairs_table(pairs: Iterable[tuple[str, str]]) -> str:
    """Put names beside their values."""
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in pairs)
    return f'<table class="pairs"><tbody>{rows}</tbody></table>'


def listed(lines: Iterable[str]) -> str:
    """Write the items of a list."""
    return "".join(f"<li>{escape(each)}</li>" for each in lines)


def signed(value: float | None, digits: int) -> str:
    """Write a number with its sign; a dash for None."""
    return DASH if value is None else f"{value:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


def spoken_time(time_ns: TsNs) -> str:
    """Write a time to the second, without what is zero: `2024-01-03`, `2024-01-03 14:30`."""
    day, _, clock = str(np.datetime64(time_ns, "ns").astype("datetime64[s]")).partition("T")
    if clock == "00:00:00":
        return day
    return f"{day} {clock.removesuffix(':00')}"


def spoken_duration(seconds: float) -> str:
    """Write `12.3 s`, `2 min 5 s`, `3 h 20 min`, from two days on `12 d 4 h`."""
    if seconds < _MINUTE_S:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), _MINUTE_S)
    hours, minutes = divmod(minutes, 60)
    if hours >= _SPOKEN_HOURS:
        return f"{hours // 24:,} d {hours % 24} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
