"""Charts on the sheets of a PDF, drawn as lines and areas."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from daemon.research.pdf_page import INK, LINE, MARGIN, SOFT, WIDTH, Rgb, latin
from daemon.research.report_words import day, figure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.research.pdf_page import Sheet

Span: TypeAlias = tuple[float, float]

_LEFT_MM: Final = 17.0
_BELOW_MM: Final = 5.0
_MARKS: Final = 5
_FARTHEST: Final = 1e100


class Plot:
    """An area with axes at the sheet's current place; drawing beyond its ranges is the caller's mistake.

    x, y: lowest and highest value. kind: what x counts, times being Unix ms. unit: after the numbers of y.
    """

    def __init__(
        self, sheet: Sheet, x: Span, y: Span, *, height_mm: float, kind: Literal["number", "time"], unit: str = ""
    ) -> None:
        sheet.room(height_mm + 2)
        self._sheet = sheet
        self._x, self._y = _wide(x), _wide(y)
        self._left, self._width = MARGIN + _LEFT_MM, WIDTH - _LEFT_MM - 2
        self._top, self._height = sheet.get_y() + 1, height_mm - _BELOW_MM - 2
        self._axes(kind, unit)
        sheet.set_xy(MARGIN, self._top + self._height + _BELOW_MM + 1)

    def curve(self, xs: Sequence[float], ys: Sequence[float], rgb: Rgb, width_mm: float = 0.35) -> None:
        """Draw a line through points."""
        points = [self._place(x, y) for x, y in zip(xs, ys, strict=True)]
        if len(points) > 1:
            self._sheet.set_draw_color(*rgb)
            self._sheet.set_line_width(width_mm)
            self._sheet.polyline(points)

    def area(self, xs: Sequence[float], low: Sequence[float], high: Sequence[float], rgb: Rgb) -> None:
        """Fill what is between two lines."""
        points = [self._place(x, y) for x, y in zip(xs, low, strict=True)]
        points += [self._place(x, y) for x, y in zip(reversed(xs), reversed(high), strict=True)]
        if len(points) > 2:  # noqa: PLR2004
            self._sheet.set_fill_color(*rgb)
            self._sheet.polygon(points, style="F")

    def bar(self, x: Span, y: float, rgb: Rgb) -> None:
        """Fill a bar from zero."""
        left, top = self._place(x[0], max(y, 0.0))
        right, bottom = self._place(x[1], min(y, 0.0))
        self._sheet.set_fill_color(*rgb)
        self._sheet.rect(left, top, max(right - left - 0.2, 0.1), bottom - top, style="F")

    def upright(self, x: float) -> None:
        """Draw a dashed line over the whole height; none where x is outside."""
        if self._x[0] <= x <= self._x[1]:
            self._sheet.set_draw_color(*INK)
            self._sheet.set_line_width(0.3)
            self._sheet.set_dash_pattern(dash=1, gap=0.8)
            self._sheet.line(*self._place(x, self._y[0]), *self._place(x, self._y[1]))
            self._sheet.set_dash_pattern()

    def _place(self, x: float, y: float) -> tuple[float, float]:
        across = (_near(x) - self._x[0]) / (self._x[1] - self._x[0])
        up = (_near(y) - self._y[0]) / (self._y[1] - self._y[0])
        return self._left + self._width * across, self._top + self._height * (1 - up)

    def _axes(self, kind: str, unit: str) -> None:
        sheet = self._sheet
        sheet.set_font("Helvetica", "", 7)
        sheet.set_text_color(*SOFT)
        sheet.set_draw_color(*LINE)
        sheet.set_line_width(0.15)
        for y in _round_marks(self._y):
            _, at = self._place(self._x[0], y)
            sheet.line(self._left, at, self._left + self._width, at)
            sheet.set_xy(MARGIN, at - 1.5)
            sheet.cell(_LEFT_MM - 1.5, 3, latin(figure(y, 6) + unit), align="R")
        for x in _marks(self._x) if kind == "time" else _round_marks(self._x):
            at, _ = self._place(x, self._y[0])
            sheet.line(at, self._top + self._height, at, self._top + self._height + 1)
            text = latin(day(int(x)) if kind == "time" else figure(x, 6))
            half = sheet.get_string_width(text) / 2
            sheet.set_xy(min(at, MARGIN + WIDTH - half) - half, self._top + self._height + 1.3)
            sheet.cell(2 * half, 3, text)


def reach(*columns: Sequence[float]) -> Span:
    """Find the lowest and the highest of all values; those that are no numbers count as none."""
    known = [value for column in columns for value in column if math.isfinite(value)]
    return (min(known), max(known)) if known else (0.0, 1.0)


def _near(value: float) -> float:
    return min(max(value, -_FARTHEST), _FARTHEST) if value == value else 0.0  # noqa: PLR0124 - NaN alone differs


def _wide(span: Span) -> Span:
    """Leave room where all values are the same."""
    low, high = _near(span[0]), _near(span[1])
    if high - low > 1e-9 * max(abs(low), abs(high)):
        return low, high
    edge = max(abs(low) * 0.01, 0.5)
    return low - edge, high + edge


def _marks(span: Span) -> list[float]:
    step = (span[1] - span[0]) / (_MARKS - 1)
    return [span[0] + number * step for number in range(_MARKS)]


def _round_marks(span: Span) -> list[float]:
    """Choose multiples of 1, 2 or 5 times a power of ten."""
    rough = (span[1] - span[0]) / _MARKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(each * power for each in (1, 2, 5, 10) if each * power >= rough)
    return [number * step for number in range(math.ceil(span[0] / step), math.floor(span[1] / step) + 1)][: 2 * _MARKS]
