"""Configuration: shipped defaults, then the user's file, then `--config`, key by key.

Every room owns the struct of its section; this module joins them and knows files. A key that no struct has, or a
value of another type, is an error that names file, key and what is allowed.
"""

from __future__ import annotations

import math
import os
import re
import tomllib
import typing
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
import platformdirs
from msgspec import Meta

from adapters.binance.config import BinanceConfig
from adapters.coinbase.config import CoinbaseConfig
from adapters.registry import VenueSettings
from daemon.api.settings import HttpConfig
from daemon.app import keychain
from daemon.app.logs import LogConfig
from daemon.app.recording import FeedConfig
from daemon.app.resources import resource
from daemon.app.scheduler import ScheduleConfig
from daemon.core.errors import Code, ConfigError
from daemon.core.secret import is_secret
from daemon.ingest.recording import RecordConfig
from daemon.research.backtest_memory import BacktestConfig
from daemon.research.executors import WorkersConfig
from daemon.research.plans import ProbeConfig
from daemon.research.strategies import StrategiesConfig
from daemon.store.env import StoreConfig
from daemon.store.upkeep import RetentionConfig

APPLICATION: Final = "atlasd"
PLACEHOLDER: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::([^}]*))?\}")
# Nothing, or a placeholder by itself, whose default would be a secret in the file as well.
_SECRET_FROM_OUTSIDE: Final = re.compile(r"(\$\{[A-Za-z_][A-Za-z0-9_]*:?\})?")


class DataConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Section `[data]` of config.toml. dir: empty for the per-user data folder."""

    dir: str = ""


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole configuration; handed out section by section."""

    data: DataConfig
    store: StoreConfig
    probe: ProbeConfig
    workers: WorkersConfig
    backtest: BacktestConfig
    strategies: StrategiesConfig
    http: HttpConfig
    log: LogConfig
    record: RecordConfig
    feeds: dict[str, FeedConfig] = {}
    retention: RetentionConfig
    schedule: ScheduleConfig
    binance: BinanceConfig
    coinbase: CoinbaseConfig

    @property
    def venues(self) -> VenueSettings:
        """What adapters of venues need, with the secrets that only the keychain has."""
        return VenueSettings(keychain.filled("binance", self.binance), keychain.filled("coinbase", self.coinbase))

    def data_dir(self, chosen: Path | None = None) -> Path:
        """Return the data folder: `--data-dir`, else the configured one, else the system's per-user folder."""
        if chosen is not None:
            return chosen
        return Path(self.data.dir or platformdirs.user_data_dir(APPLICATION, appauthor=False)).expanduser()


def load(chosen: Path | None = None) -> Config:
    """Read all layers. chosen: the file of `--config`, which must exist.

    ConfigError CONFIG_INVALID names the file, the key and what is allowed.
    """
    merged: dict[str, Any] = {}
    for path in layers(chosen):
        _merge(merged, _checked(Config, read_layer(path), path, ()))
        try:
            settings = msgspec.convert(merged, Config)
        except msgspec.ValidationError as error:  # what no single key shows
            raise ConfigError(Code.CONFIG_INVALID, f"{path}: {error}", {"file": str(path)}) from None
    return settings


def user_file() -> Path:
    """Return where the user's own configuration lies, be it there or not."""
    return Path(platformdirs.user_config_dir(APPLICATION, appauthor=False)) / "config.toml"


def layers(chosen: Path | None) -> list[Path]:
    """Return the files that are read, the shipped one first; later ones go over it."""
    layers = [resource("config.toml")]
    if user_file().exists():
        layers.append(user_file())
    if chosen is not None:
        layers.append(chosen)
    return layers


def read_layer(path: Path) -> dict[str, Any]:
    """Decode one file as it is written; ConfigError CONFIG_INVALID."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(Code.CONFIG_INVALID, f"{path}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(Code.CONFIG_INVALID, f"{path}: is not TOML: {error}") from error


def _checked(kind: Any, value: Any, path: Path, keys: tuple[str, ...]) -> Any:
    """Return a value of a file with its placeholders filled, checked against the type its key has."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        fields = typing.get_type_hints(kind, include_extras=True)
        return {
            key: _checked(_field(fields, key, path, keys), inner, path, (*keys, key))
            for key, inner in _table(value, path, keys).items()
        }
    if typing.get_origin(kind) is dict:
        inner_kind = typing.get_args(kind)[1]
        table = _table(value, path, keys)
        return {key: _checked(inner_kind, inner, path, (*keys, key)) for key, inner in table.items()}
    if is_secret(kind) and isinstance(value, str) and not _SECRET_FROM_OUTSIDE.fullmatch(value):
        raise _written_secret(path, keys)
    filled = _fill(value)
    if filled != value and isinstance(filled, str) and typing.get_origin(kind) is list:
        filled = [part.strip() for part in filled.split(",") if part.strip()]
    try:
        converted = msgspec.convert(filled, kind, strict=filled == value)
        if isinstance(converted, float) and not math.isfinite(converted):
            raise msgspec.ValidationError(f"{converted} is not finite")
    except msgspec.ValidationError as error:
        came = f" (from `{value}`)" if filled != value else ""
        raise _wrong(path, keys, f"{error}{came}; allowed: {_allowed(kind)}") from None
    return converted


def _field(fields: dict[str, Any], key: str, path: Path, keys: tuple[str, ...]) -> Any:
    if key not in fields:
        raise _wrong(path, (*keys, key), f"unknown key; allowed here: {', '.join(fields)}")
    return fields[key]


def _table(value: Any, path: Path, keys: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(path, keys, f"is {value!r}; allowed: a table of keys")
    return value


def _fill(value: Any) -> Any:
    """Replace placeholders, also in a list's texts; what is not a text stays as it is."""
    if isinstance(value, list):
        return [_fill(part) for part in value]
    if not isinstance(value, str):
        return value

    def environment(match: re.Match[str]) -> str:
        name, default = match.groups()
        return os.environ.get(name, default if default is not None else "")

    return PLACEHOLDER.sub(environment, value)


def _allowed(kind: Any) -> str:
    """Say a key's type in words."""
    if typing.get_origin(kind) is Annotated:
        base, *metas = typing.get_args(kind)
        bounds = [
            f"{word} {bound}"
            for meta in metas
            if isinstance(meta, Meta)
            for word, bound in (
                ("at least", meta.ge),
                ("above", meta.gt),
                ("at most", meta.le),
                ("below", meta.lt),
            )
            if bound is not None
        ]
        return " ".join([_allowed(base), *bounds])
    if typing.get_origin(kind) is Literal:
        return " or ".join(f'"{choice}"' for choice in typing.get_args(kind))
    if typing.get_origin(kind) is list:
        return "a list of texts"
    return {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}.get(kind, str(kind))


def _written_secret(path: Path, keys: tuple[str, ...]) -> ConfigError:
    """Refuse a secret in a file, which is copied, shown and backed up; the message does not repeat it."""
    key = ".".join(keys)
    variable = keychain.variable(key)
    return ConfigError(
        Code.SECRET_IN_FILE,
        f"{path}: {key}: secrets are not taken from files. Remove it there; `atlasd secret set {key}` puts it into "
        f'the system\'s keychain, or set {variable} in the environment, which "${{{variable}:}}" stands for',
        {"file": str(path), "key": key},
    )


def _wrong(path: Path, keys: tuple[str, ...], reason: str) -> ConfigError:
    key = ".".join(keys)
    return ConfigError(Code.CONFIG_INVALID, f"{path}: {key}: {reason}", {"file": str(path), "key": key})


def _merge(under: dict[str, Any], over: dict[str, Any]) -> None:
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(under.get(key), dict):
            _merge(under[key], value)
        else:
            under[key] = value
