"""Secrets of venues: from the environment, else from the system's keychain; never from a file of ours.

A secret is called as its key in config.toml, `binance.api_key`. Which ones were put into the keychain is noted by name
in the user's configuration folder: whoever has none there pays nothing for the keychain, and is never asked to unlock
it. A keychain that is not there when a secret is read gives none, silently: the venue says what it wants a key for.
"""

from __future__ import annotations

import logging
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

import msgspec
import platformdirs

from daemon.core.errors import Code, ConfigError, InvalidRequest, NotFound
from daemon.core.secret import is_secret

if TYPE_CHECKING:
    from collections.abc import Iterable

    from keyring.backend import KeyringBackend

_log = logging.getLogger(__name__)

T = TypeVar("T", bound=msgspec.Struct)

SERVICE: Final = "atlasd"
_NOTE: Final = "secrets.json"
_LONGEST: Final = 1_024


class Held(NamedTuple):
    """One secret that may be set. source: `environment`, `keychain`, or empty where it is in neither."""

    name: str
    source: str
    variable: str


def names(config: type[msgspec.Struct]) -> list[str]:
    """List the secrets that a configuration may hold: fields of its sections that are declared as such."""
    sections = typing.get_type_hints(config, include_extras=True)
    return [
        f"{section}.{field}"
        for section, kind in sections.items()
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct)
        for field in _fields(kind)
    ]


def variable(name: str) -> str:
    """Return the variable of the environment that a secret is taken from, as the shipped config.toml has it."""
    return f"ATLASD_{name.replace('.', '_').upper()}"


def filled(section: str, settings: T) -> T:
    """Return a section with those of its secrets from the keychain that the environment did not give."""
    empty = [field for field in _fields(type(settings)) if not getattr(settings, field)]
    found = {field: secret for field in empty if (secret := read(f"{section}.{field}"))}
    return msgspec.structs.replace(settings, **found) if found else settings


def values(sections: Iterable[msgspec.Struct]) -> list[str]:
    """List the secrets that sections hold, for logs to hide."""
    held = (getattr(section, field) for section in sections for field in _fields(type(section)))
    return [secret for secret in held if secret]


def held(config: msgspec.Struct) -> list[Held]:
    """Say of each secret of a loaded configuration where it comes from; the environment goes before the keychain."""
    found = []
    for name in names(type(config)):
        section, _, field = name.partition(".")
        given = getattr(getattr(config, section), field)
        found.append(Held(name, "environment" if given else "keychain" if read(name) else "", variable(name)))
    return found


def read(name: str) -> str | None:
    """Return a secret out of the keychain; None where it has none, or cannot be asked."""
    if name not in _noted():
        return None
    from keyring.errors import KeyringError

    try:
        return _backend(name).get_password(SERVICE, name)
    except (KeyringError, ConfigError) as error:
        _log.info("the keychain was not asked for %s: %s", name, error)
        return None


def store(name: str, secret: str, known: Iterable[str]) -> None:
    """Put a secret into the keychain.

    InvalidRequest where there is no such secret, or it cannot be one; ConfigError KEYCHAIN_UNAVAILABLE.
    """
    _check(name, known)
    if not secret or len(secret) > _LONGEST or not secret.isprintable() or secret != secret.strip():
        raise InvalidRequest(
            Code.INVALID_REQUEST, f"a secret is one line of 1 to {_LONGEST} printable characters, without blanks around"
        )
    from keyring.errors import KeyringError

    backend = _backend(name)
    try:
        backend.set_password(SERVICE, name, secret)
        is_kept = backend.get_password(SERVICE, name) == secret
    except KeyringError as error:
        raise _unavailable(name, str(error) or type(error).__name__) from error
    if not is_kept:
        raise _unavailable(name, "it took the secret and does not give it back")
    _note({*_noted(), name})


def delete(name: str, known: Iterable[str]) -> None:
    """Take a secret out of the keychain.

    NotFound SECRET_NOT_FOUND where it has none; ConfigError KEYCHAIN_UNAVAILABLE.
    """
    _check(name, known)
    from keyring.errors import KeyringError, PasswordDeleteError

    try:
        _backend(name).delete_password(SERVICE, name)
    except PasswordDeleteError as error:
        _note(_noted() - {name})
        why = f"the keychain has no {name}: `atlasd secret list` shows what is set"
        raise NotFound(Code.SECRET_NOT_FOUND, why) from error
    except KeyringError as error:
        raise _unavailable(name, str(error) or type(error).__name__) from error
    _note(_noted() - {name})


def _backend(name: str) -> KeyringBackend:
    """Return the keychain; ConfigError KEYCHAIN_UNAVAILABLE where the system has none."""
    import keyring
    from keyring.backends import fail

    backend = keyring.get_keyring()
    if isinstance(backend, fail.Keyring):
        raise _unavailable(name, "there is none, or it is not running")
    return backend


def _unavailable(name: str, why: str) -> ConfigError:
    return ConfigError(
        Code.KEYCHAIN_UNAVAILABLE,
        f"the system's keychain cannot be used for {name}: {why}. Start it, or set {variable(name)} in the environment",
    )


def _check(name: str, known: Iterable[str]) -> None:
    all_known = list(known)
    if name not in all_known:
        raise InvalidRequest(
            Code.INVALID_REQUEST, f"there is no secret `{name[:60]}`: {', '.join(all_known)}", {"field": "name"}
        )


def _fields(kind: type[msgspec.Struct]) -> list[str]:
    return [field for field, inner in typing.get_type_hints(kind, include_extras=True).items() if is_secret(inner)]


def _note_file() -> Path:
    return Path(platformdirs.user_config_dir(SERVICE, appauthor=False)) / _NOTE


def _noted() -> set[str]:
    try:
        return set(msgspec.json.decode(_note_file().read_bytes(), type=list[str]))
    except (OSError, msgspec.MsgspecError):
        return set()


def _note(noted: set[str]) -> None:
    if noted == _noted():
        return
    from daemon.app.lock import write_atomically

    _note_file().parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomically(_note_file(), msgspec.json.encode(sorted(noted)))
