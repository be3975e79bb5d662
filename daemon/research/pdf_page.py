"""Sheets of a PDF: text, lists and tables that wrap, are cut where they are long, and go on on the next sheet.

Its fonts are those that every reader of PDF has, which know the letters of Western Europe (Windows-1252) and no others:
what they lack is shown as an inverted question mark, and the foot of the sheet says so. Loading fpdf2 takes a while:
import this module where a PDF is made.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from typing import TYPE_CHECKING, Final, TypeAlias

from fpdf import FPDF

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

Rgb: TypeAlias = tuple[int, int, int]

INK: Final[Rgb] = (29, 33, 38)
SOFT: Final[Rgb] = (93, 100, 109)
LINE: Final[Rgb] = (215, 215, 210)
ACCENT: Final[Rgb] = (31, 95, 168)
GAIN: Final[Rgb] = (27, 100, 173)
LOSS: Final[Rgb] = (192, 80, 15)
TINTS: Final[dict[str, Rgb]] = {
    "robust": (214, 230, 246),
    "doubtful": (255, 241, 201),
    "overfitted": (251, 227, 224),
    "insufficient data": (227, 229, 230),
}

UNKNOWN: Final = "\N{INVERTED QUESTION MARK}"
MOST_LETTERS: Final = 600
MARGIN: Final = 16.0
WIDTH: Final = 210 - 2 * MARGIN

_FONT: Final = "Helvetica"
_BOTTOM: Final = 297 - 18.0
_TOP: Final = 22.0
_CELL_LINES: Final = 5
_ROUNDING: Final = 0.01
_GAP: Final = 2.5
_NAMES_MM: Final = 86.0
_MM_A_POINT: Final = 0.45  # height of a line for each point of the font
_SPOKEN: Final = {
    "\N{MINUS SIGN}": "-",
    "\N{CHECK MARK}": "+",
    "\N{RIGHTWARDS ARROW}": "->",
}


def latin(text: str, most: int = MOST_LETTERS) -> str:
    """Write a text with the letters that the fonts have; what steers a printer or turns text around becomes a blank."""
    shown = unicodedata.normalize("NFC", text[: 2 * most])
    shown = "".join(_letter(each) for each in shown)
    return shown if len(shown) <= most and len(text) <= 2 * most else f"{shown[:most]}\N{HORIZONTAL ELLIPSIS}"


def _letter(letter: str) -> str:
    if letter in _SPOKEN:
        return _SPOKEN[letter]
    if not letter.isprintable():
        return " "
    try:
        letter.encode("cp1252")
    except UnicodeEncodeError:
        return UNKNOWN
    return letter


class Sheet(FPDF):
    """A document of A4 sheets, a line over and under each. made: when, so that equal input gives equal bytes."""

    def __init__(self, title: str, over: str, made: datetime) -> None:
        super().__init__(format="A4")
        self.core_fonts_encoding = "windows-1252"
        self.str_alias_nb_pages = ""  # a user's text may hold any placeholder
        self.set_auto_page_break(auto=False)
        self.set_margins(MARGIN, _TOP, MARGIN)
        self.c_margin = 0
        self.set_creation_date(made)
        self.set_title(latin(title))
        self.set_lang("en")
        self.set_producer("atlasd")
        self._over = latin(over)
        self._is_lacking = False
        self.add_page()

    def header(self) -> None:
        """Write what this is over a sheet."""
        self._pen(7.5, SOFT)
        self.set_xy(MARGIN, 11)
        self.cell(WIDTH, 4, self._fitting(self._over, WIDTH))
        self._rule(16)
        self.set_xy(MARGIN, _TOP)

    def footer(self) -> None:
        """Write a sheet's number, and explain the mark of letters that it lacks."""
        self._pen(7.5, SOFT)
        self._rule(297 - 14)
        self.set_xy(MARGIN, 297 - 12.5)
        lacking = f"{UNKNOWN} stands for a letter that the fonts of a PDF lack; the HTML report shows it"
        self.cell(WIDTH - 20, 4, lacking if self._is_lacking else "times are UTC")
        self.cell(20, 4, f"page {self.page_no()}", align="R")

    # Text.

    def room(self, height_mm: float) -> None:
        """Begin a new sheet where the rest of this one is too short."""
        if self.get_y() + height_mm > _BOTTOM and self.get_y() > _TOP:
            self.add_page()

    def space(self, height_mm: float) -> None:
        """Leave some room."""
        self.set_y(self.get_y() + height_mm)

    def heading(self, text: str, *, below_mm: float = 14) -> None:
        """Begin a section; below_mm: what must still fit under its heading."""
        self.space(5)
        self.room(8 + below_mm)
        self.paragraph(text, points=12.5, style="B")
        self.space(1)

    def paragraph(
        self,
        text: str,
        *,
        points: float = 9,
        style: str = "",
        rgb: Rgb = INK,
        indent_mm: float = 0,
        width_mm: float = WIDTH,
        lines: int = 12,
    ) -> None:
        """Write a text; width_mm: with its indent."""
        shown = self._latin(text)
        self._pen(points, rgb, style)
        for line in self._wrapped(shown, width_mm - indent_mm, lines):
            self.room(points * _MM_A_POINT)
            self._pen(points, rgb, style)  # a new sheet has written its own header
            self.set_x(MARGIN + indent_mm)
            self.cell(WIDTH - indent_mm, points * _MM_A_POINT, line, new_x="LMARGIN", new_y="NEXT")

    def listing(self, title: str, sentences: Sequence[str], most: int = 30) -> None:
        """Write sentences under a small title; nothing where there are none."""
        if not sentences:
            return
        self.space(1.5)
        self.room(10)
        self.paragraph(title, style="B")
        for number, each in enumerate(sentences[:most]):
            self.space(0.4)
            self.room(9 * _MM_A_POINT)
            self._pen(9, SOFT)
            at = self.get_y()
            self.cell(4, 9 * _MM_A_POINT, f"{number + 1}." if len(sentences) <= most else "\N{BULLET}")
            self.set_y(at)
            self.paragraph(each, indent_mm=5)
        if len(sentences) > most:
            self.paragraph(f"and {len(sentences) - most:,} more: the result has all", rgb=SOFT, indent_mm=5)

    def pairs(self, rows: Iterable[tuple[str, str]]) -> None:
        """Put names beside their values."""
        for name, value in rows:
            self.room(8.4)
            at = self.get_y()
            self.paragraph(name, points=8.5, rgb=SOFT, width_mm=_NAMES_MM - _GAP, lines=2)
            below = self.get_y()
            self.set_y(at)
            self.paragraph(value, points=8.5, indent_mm=_NAMES_MM, lines=2)
            self.set_y(max(self.get_y(), below))

    def banner(self, word: str, text: str) -> None:
        """Write the one line that nobody may miss, on its tint."""
        self.set_fill_color(*TINTS[word])
        at = self.get_y()
        self.rect(MARGIN, at, WIDTH, 10, style="F")
        self._pen(14, INK, "B")
        self.set_xy(MARGIN + 3, at + 1.5)
        self.cell(WIDTH - 6, 7, self._fitting(self._latin(text), WIDTH - 6))
        self.set_xy(MARGIN, at + 11.5)

    # Tables.

    def tabulate(
        self, headings: Sequence[str], rows: Sequence[Sequence[str]], *, right_from: int, points: float = 7.5
    ) -> None:
        """Write rows under headings, which every sheet repeats; right_from: first column that is set flush right."""
        shown = [[self._latin(cell, 300) for cell in row] for row in rows]
        heads = [self._latin(each) for each in headings]
        self._pen(points, INK)
        widths = self._widths([heads, *shown])
        self._heads(heads, widths, right_from, points)
        for row in shown:
            lines = self._cells(row, widths, points)
            if self.get_y() + self._height(lines, points) > _BOTTOM:
                self.add_page()
                self._heads(heads, widths, right_from, points)
            self._row(lines, widths, right_from, points)
        self.space(1)

    def _heads(self, heads: Sequence[str], widths: Sequence[float], right_from: int, points: float) -> None:
        self.room(12)
        self._row(self._cells(heads, widths, points), widths, right_from, points, rgb=SOFT)

    def _widths(self, rows: Sequence[Sequence[str]]) -> list[float]:
        """Give each column what it needs.

        Where that is too much, those that need more than an equal share give way and wrap: each has its longest word,
        and of what is left a part as large as what it lacks.
        """
        columns = list(zip(*rows, strict=True))
        needs = [max(map(self.get_string_width, column)) + _GAP + _ROUNDING for column in columns]
        if sum(needs) <= WIDTH:
            return needs
        share = WIDTH / len(needs)
        words = [max(map(self.get_string_width, " ".join(column).split()), default=0.0) for column in columns]
        least = [
            need if need <= share else min(word + _GAP + _ROUNDING, share)
            for need, word in zip(needs, words, strict=True)
        ]
        part = (WIDTH - sum(least)) / (sum(needs) - sum(least))
        return [low + part * (need - low) for low, need in zip(least, needs, strict=True)]

    def _cells(self, row: Sequence[str], widths: Sequence[float], points: float) -> list[list[str]]:
        self._pen(points, INK)
        return [self._wrapped(cell, width - _GAP, _CELL_LINES) for cell, width in zip(row, widths, strict=True)]

    def _height(self, lines: Sequence[Sequence[str]], points: float) -> float:
        return max(len(each) for each in lines) * points * _MM_A_POINT + 1.2

    def _row(
        self,
        lines: Sequence[Sequence[str]],
        widths: Sequence[float],
        right_from: int,
        points: float,
        *,
        rgb: Rgb = INK,
    ) -> None:
        self._pen(points, rgb)
        top, left = self.get_y(), MARGIN
        for place, (cell, width) in enumerate(zip(lines, widths, strict=True)):
            for number, line in enumerate(cell):
                self.set_xy(left, top + 0.6 + number * points * _MM_A_POINT)
                align = "R" if place >= right_from else "L"
                self.cell(width - _GAP, points * _MM_A_POINT, line, align=align)
            left += width
        bottom = top + self._height(lines, points)
        self._rule(bottom)
        self.set_xy(MARGIN, bottom)

    # Fitting.

    def _latin(self, text: str, most: int = MOST_LETTERS) -> str:
        shown = latin(text, most)
        self._is_lacking = self._is_lacking or (UNKNOWN in shown and UNKNOWN not in text)
        return shown

    def _wrapped(self, text: str, width: float, most: int) -> list[str]:
        """Break a text at blanks, and words that are longer than a line anywhere."""
        lines, line = [], ""
        words = text.split()[::-1]
        while words:
            word = words.pop()
            longer = f"{line} {word}" if line else word
            if self.get_string_width(longer) <= width:
                line = longer
            elif line:
                lines.append(line)
                line = ""
                words.append(word)
            else:
                count = max(1, self._letters(word, width))
                lines.append(word[:count])
                words += [word[count:]] if word[count:] else []
        lines += [line] if line or not lines else []
        if len(lines) > most:
            lines = [*lines[: most - 1], self._fitting(f"{lines[most - 1]}\N{HORIZONTAL ELLIPSIS}", width)]
        return lines

    def _fitting(self, text: str, width: float) -> str:
        if self.get_string_width(text) <= width:
            return text
        return f"{text[: self._letters(text, width - 3)]}\N{HORIZONTAL ELLIPSIS}"

    def _letters(self, text: str, width: float) -> int:
        return bisect_right(range(1, len(text) + 1), width, key=lambda count: self.get_string_width(text[:count]))

    def _pen(self, points: float, rgb: Rgb, style: str = "") -> None:
        self.set_font(_FONT, "B" if style == "B" else "", points)
        self.set_text_color(*rgb)

    def _rule(self, at: float) -> None:
        self.set_draw_color(*LINE)
        self.set_line_width(0.15)
        self.line(MARGIN, at, MARGIN + WIDTH, at)
