"""Secrets out of texts, before these are written anywhere.

A text is searched by what secrets look like and by what stands before them, since nobody knows beforehand which
library will put a whole request into an error's message. What is public stays, as long as it cannot be taken for a
secret: symbols, dates, paths, addresses of contracts, hashes. Where in doubt, the text loses.

All rules look at the text as it came, so that none takes away what another goes by. Every expression is bounded: a
text takes time in proportion to its length, whoever has written it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

HIDDEN: Final = "[hidden]"
SHORTEST: Final = 8
"""Known secrets of fewer characters are not searched for: they would be found in everything."""

_BEGIN: Final = r"(?<![A-Za-z0-9])"
_REST: Final = r"(?P<secret>(?:[^\s\"'\\,;]|\\(?![rn\"'])){1,4096})"
_QUOTE: Final = r"\\{0,3}[\"']"
_WORDS: Final = ("token", "secret", "signature", "credential")
_NAMES: Final = rf"(?:api[_-]?key|passphrase|password|passwd|(?:private|access)[_-]?key|{'|'.join(_WORDS)})"
_SCHEME: Final = r"[A-Za-z][A-Za-z0-9+.-]{0,15}://"


class _Rule(NamedTuple):
    """Where to look. marks: none of the rule without one of these, in small letters; quick to look for."""

    marks: tuple[str, ...]
    pattern: re.Pattern[str]


_PROSE: Final = re.compile(r"[`(]?[a-z]{1,15}[`.!?)]{0,2}")
"""What may follow `token: ` and the other words in a sentence; no secret of this kind is one short word."""

# What stands between a name and its secret: `name=value`, `name: value`, `"name": "value"`, `(b'name', b'value')`, also
# where an address is itself a parameter of another, or JSON a text in JSON.
_NAMED: Final = _Rule(
    ("key", "pass", *_WORDS),
    re.compile(
        rf"(?P<name>{_NAMES})[A-Za-z0-9_-]{{0,32}}"
        rf"(?:(?:{_QUOTE})?\s{{0,4}}(?P<mark>=|%3d|:|%3a)(?P<space>\s{{0,4}})|{_QUOTE}\s{{0,4}},\s{{0,4}}(?=b?{_QUOTE}))"
        rf"(?:b?{_QUOTE}(?P<quoted>[^\"'\r\n]{{1,4096}})|(?P<bare>[^\s\"'&#,;)}}\]<>]{{1,4096}}))",
        re.IGNORECASE,
    ),
)
_AUTHORIZATION: Final = _Rule(
    ("authorization",),
    re.compile(
        rf"{_BEGIN}(?:proxy-)?authorization(?:{_QUOTE})?\s{{0,4}}[:=,]\s{{0,4}}(?:b?{_QUOTE})?"
        rf"(?:(?:bearer|basic|digest|token)\s{{1,4}})?{_REST}",
        re.IGNORECASE,
    ),
)
_PLAIN: Final = (
    _AUTHORIZATION,
    _Rule(("bearer",), re.compile(rf"{_BEGIN}bearer\s{{1,4}}{_REST}", re.IGNORECASE)),
    _Rule(("atlas.auth.",), re.compile(rf"atlas\.auth\.{_REST}", re.IGNORECASE)),
    _Rule(("#code=",), re.compile(rf"#code={_REST}")),
    _Rule(
        ("eyj",),
        re.compile(r"(?<![A-Za-z0-9_-])(?P<secret>eyJ[A-Za-z0-9_-]{4,8192}(?:\.[A-Za-z0-9_-]{0,8192}){1,4})"),
    ),
    _Rule(("://",), re.compile(rf"{_BEGIN}{_SCHEME}(?P<secret>[^\s/\"'?#]{{1,1024}})@")),
    # A token of this daemon, a key of a venue, a signature: long, and of both cases as no word of a program is.
    _Rule(
        ("",),
        re.compile(
            r"(?<![A-Za-z0-9_+-])(?=[A-Z0-9_+-]{0,8192}[a-z])(?=[a-z0-9_+-]{0,8192}[A-Z])"
            r"(?P<secret>[A-Za-z0-9_+-]{43,})"
        ),
    ),
    # A signature of a transaction; a hash has 64 digits.
    _Rule(("",), re.compile(rf"{_BEGIN}(?P<secret>(?:0x)?[0-9a-fA-F]{{128,}})(?![A-Za-z0-9])")),
)
# Venues of blocks have keys in the paths of their addresses: /v3/KEY, /api/KEY/subgraphs. An address of a chain stays.
_ADDRESS: Final = re.compile(rf"{_BEGIN}{_SCHEME}[^\s\"'<>]{{1,8192}}")
_SEGMENT: Final = re.compile(
    r"(?<=/)(?!0x[0-9a-fA-F]{40}(?![A-Za-z0-9_-]))(?=[A-Za-z_-]{0,4096}[0-9])[A-Za-z0-9_-]{24,8192}(?![A-Za-z0-9_.%-])"
)


def redacted(text: str, known: Iterable[str] = ()) -> str:
    """Return a text without its secrets: `[hidden]` stands in their places.

    known: secrets that are in use, which are taken out wherever they stand and whatever they look like.
    """
    parts, done = [], 0
    for start, end in _joined([*_known(text, known), *_found(text)]):
        parts += [text[done:start], HIDDEN]
        done = end
    return "".join([*parts, text[done:]])


def _joined(places: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield places from left to right, those that touch as one."""
    open_start = open_end = -1
    for start, end in sorted(places):
        if start > open_end:
            if open_end > 0:
                yield open_start, open_end
            open_start = start
        open_end = max(open_end, end)
    if open_end > 0:
        yield open_start, open_end


def _known(text: str, known: Iterable[str]) -> Iterator[tuple[int, int]]:
    for secret in known:
        at = text.find(secret) if len(secret) >= SHORTEST else -1
        while at >= 0:
            yield at, at + len(secret)
            at = text.find(secret, at + 1)


def _found(text: str) -> Iterator[tuple[int, int]]:
    lowered = text.lower()  # most texts hold nothing of the kind
    for rule in _PLAIN:
        if any(mark in lowered for mark in rule.marks):
            for found in _overlapping(rule.pattern, text, "secret"):
                yield found.span("secret")
    if any(mark in lowered for mark in _NAMED.marks):
        for found in _overlapping(_NAMED.pattern, text, "mark"):
            if not _is_prose(found):
                yield found.span("bare" if found["quoted"] is None else "quoted")
    if "://" in text:
        for address in _ADDRESS.finditer(text):
            for found in _SEGMENT.finditer(text, *address.span()):
                yield found.span()


def _overlapping(pattern: re.Pattern[str], text: str, group: str) -> Iterator[re.Match[str]]:
    """Walk matches; the next one may begin inside of what this one takes for the secret."""
    found = pattern.search(text)
    while found is not None:
        yield found
        found = pattern.search(text, max(found.start(group), found.start() + 1))


def _is_prose(found: re.Match[str]) -> bool:
    """Tell whether a name is a word of a sentence, or its secret is hidden already."""
    bare = found["bare"]
    if bare is None:
        return False
    is_word = found["mark"] == ":" and found["space"] and found["name"].lower() in _WORDS
    return bare.startswith("[hidden") or bool(is_word and _PROSE.fullmatch(bare))
