"""Where each value of the configuration came from: what the console's settings show."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, Final

import msgspec

from daemon.api.settings import Setting
from daemon.app.config import PLACEHOLDER, layers, load, read_layer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from daemon.app.config import Config

_SECRET: Final = re.compile(r"key|secret|token|password|passphrase", re.IGNORECASE)
_USER_OF_URL: Final = re.compile(r"//[^/@]+@")
_HIDDEN: Final = "set, not shown"


def explained(config: Config, chosen: Path | None) -> list[Setting]:
    """List every value in effect with its origin, in the order of config.toml.

    config: as in effect, with what the command line put over it. chosen: the file of `--config`.
    """
    shipped, *files = layers(chosen)
    written = {key: (shipped, value) for key, value in _leaves(read_layer(shipped))}
    for path in files:
        written |= {key: (path, value) for key, value in _leaves(read_layer(path))}
    loaded = dict(_leaves(msgspec.to_builtins(load(chosen))))
    found = []
    for key, value in _leaves(msgspec.to_builtins(config)):
        path, raw = written.get(key, (shipped, None))
        variable = _variable(raw)
        if loaded.get(key) != value:
            found.append(Setting(key, _shown(key, value), "command line", None))
        elif variable is not None:
            found.append(Setting(key, _shown(key, value), "environment", variable))
        elif path != shipped:
            found.append(Setting(key, _shown(key, value), "file", str(path)))
        else:
            usual = str(config.data_dir()) if key == "data.dir" and not value else value
            found.append(Setting(key, _shown(key, usual), "default", None))
    return found


def _leaves(table: Mapping[str, Any], way: str = "") -> Iterator[tuple[str, Any]]:
    """Walk values by dotted key; an empty table is a value."""
    for key, value in table.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{way}{key}.")
        else:
            yield f"{way}{key}", value


def _variable(raw: Any) -> str | None:
    """Name the variable of the environment that a written value is filled from, None where none is set."""
    texts = [each for each in (raw if isinstance(raw, list) else [raw]) if isinstance(each, str)]
    names = (match[1] for text in texts for match in PLACEHOLDER.finditer(text))
    return next((name for name in names if name in os.environ), None)


def _shown(key: str, value: Any) -> Any:
    if isinstance(value, str) and value and _SECRET.search(key.rpartition(".")[2]):
        return _HIDDEN
    return _USER_OF_URL.sub("//\N{HORIZONTAL ELLIPSIS}@", value) if isinstance(value, str) else value
