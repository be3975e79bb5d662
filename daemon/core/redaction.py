"""Secrets out of texts, before these are written anywhere.

A text is searched by what secrets look like and by what stands before them, since nobody knows beforehand which
library will put a whole request into an error's message. What is public stays, as long as it cannot be taken for a
secret: symbols, dates, paths, addresses of contracts, hashes. Where in doubt, the text loses.

Every expression is bounded: a text takes time in proportion to its length, whoever has written it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

HIDDEN: Final = "[hidden]"
SHORTEST: Final = 8
"""Known secrets of fewer characters are not searched for: they would be found in everything."""

_BEGIN: Final = r"(?<![A-Za-z0-9])"
_REST: Final = r"[^\s\"'\\,;]{1,4096}"

# Names of secrets, and what stands between them and the secret: `name=value`, `name: value`, `"name": "value"`,
# `(b'name', b'value')`, also where an address is itself a parameter of another, or JSON a text in JSON.
_WORDS: Final = ("token", "secret", "signature", "credential")
_NAMES: Final = rf"(?:api[_-]?key|passphrase|password|passwd|(?:private|access)[_-]?key|{'|'.join(_WORDS)})"
_QUOTE: Final = r"\\{0,3}[\"']"
_NAMED: Final = re.compile(
    rf"({_NAMES}[A-Za-z0-9_-]{{0,32}}"
    rf"(?:(?:{_QUOTE})?\s{{0,4}}(?P<mark>=|%3d|:|%3a)(?P<space>\s{{0,4}})|{_QUOTE}\s{{0,4}},\s{{0,4}}(?=b?{_QUOTE})))"
    rf"(?:(b?{_QUOTE})([^\"'\r\n]{{1,4096}})|([^\s\"'&#,;)}}\]<>]{{1,4096}}))",
    re.IGNORECASE,
)
_PROSE: Final = re.compile(r"[`(]?[a-z]{1,15}[`.!?)]{0,2}")
"""What may follow `token: ` and the other words in a sentence; no secret of this kind is one short word."""

_AUTHORIZATION: Final = re.compile(
    rf"({_BEGIN}(?:proxy-)?authorization(?:{_QUOTE})?\s{{0,4}}[:=,]\s{{0,4}}(?:b?{_QUOTE})?)"
    rf"(?:[a-z][a-z0-9-]{{0,15}}\s{{1,4}})?{_REST}",
    re.IGNORECASE,
)
_SCHEME: Final = re.compile(rf"({_BEGIN}bearer\s{{1,4}}){_REST}", re.IGNORECASE)
_SUBPROTOCOL: Final = re.compile(rf"(atlas\.auth\.){_REST}", re.IGNORECASE)
_FRAGMENT: Final = re.compile(rf"(#code=){_REST}")
_WEB_TOKEN: Final = re.compile(r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{4,8192}(?:\.[A-Za-z0-9_-]{0,8192}){1,4}")
_USER: Final = re.compile(rf"({_BEGIN}[A-Za-z][A-Za-z0-9+.-]{{0,15}}://)[^\s/\"'?#]{{1,1024}}@")
# Venues of blocks have keys in the paths of their addresses: /v3/KEY, /api/KEY/subgraphs. An address of a chain stays.
_ADDRESS: Final = re.compile(rf"{_BEGIN}[A-Za-z][A-Za-z0-9+.-]{{0,15}}://[^\s\"'<>]{{1,8192}}")
_SEGMENT: Final = re.compile(
    r"(?<=/)(?!0x[0-9a-fA-F]{40}(?![A-Za-z0-9_-]))(?=[A-Za-z_-]{0,4096}[0-9])[A-Za-z0-9_-]{24,8192}(?![A-Za-z0-9_.%-])"
)
# A token of this daemon, a key of a venue, a signature: long, and of both cases as no word of a program is.
_LONG: Final = re.compile(
    r"(?<![A-Za-z0-9_+-])(?=[A-Z0-9_+-]{0,8192}[a-z])(?=[a-z0-9_+-]{0,8192}[A-Z])[A-Za-z0-9_+-]{43,}"
)
# A signature of a transaction; a hash has 64 digits.
_SIGNATURE: Final = re.compile(rf"{_BEGIN}(?:0x)?[0-9a-fA-F]{{128,}}(?![A-Za-z0-9])")


_MARKED: Final = (
    ("authorization", _AUTHORIZATION),
    ("bearer", _SCHEME),
    ("atlas.auth.", _SUBPROTOCOL),
    ("#code=", _FRAGMENT),
)
_STEMS: Final = ("key", "pass", *_WORDS)


def redacted(text: str, known: Iterable[str] = ()) -> str:
    """Return a text without its secrets: `[hidden]` stands in their places.

    known: secrets that are in use, which are taken out wherever they stand and whatever they look like.
    """
    for secret in known:
        if len(secret) >= SHORTEST:
            text = text.replace(secret, HIDDEN)
    lowered = text.lower()  # most texts hold nothing of the kind, and looking for a word is quick
    text = _WEB_TOKEN.sub(HIDDEN, text) if "eyj" in lowered else text
    for mark, kept in _MARKED:
        text = kept.sub(rf"\1{HIDDEN}", text) if mark in lowered else text
    if any(stem in lowered for stem in _STEMS):
        text = _NAMED.sub(_without_value, text)
    if "://" in text:
        text = _USER.sub(rf"\1{HIDDEN}@", text)
        text = _ADDRESS.sub(lambda address: _SEGMENT.sub(HIDDEN, address[0]), text)
    text = _SIGNATURE.sub(HIDDEN, text)
    return _LONG.sub(HIDDEN, text)


def _without_value(found: re.Match[str]) -> str:
    name, quote, quoted, bare = found[1], found[4], found[5], found[6]
    if quoted is not None:
        return f"{name}{quote}{HIDDEN}"
    is_sentence = found["mark"] == ":" and found["space"] and name.lower().startswith(_WORDS) and _PROSE.fullmatch(bare)
    return found[0] if is_sentence or bare.startswith("[hidden") else f"{name}{HIDDEN}"
