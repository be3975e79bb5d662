"""`atlasd doctor`: everything that a daemon needs of its machine, looked at one by one, with what to do.

Nothing is left behind and no network is asked, so that it may be run at any time, beside a daemon as well.
"""

from __future__ import annotations

import os
import platform
import shutil
import stat
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import msgspec

import daemon
from daemon.api.health import LITTLE_DISK_BYTES, NO_DISK_BYTES
from daemon.app import client, keychain, tokens, wiring
from daemon.app.lock import is_held, read_owner
from daemon.core.errors import AtlasError, ConfigError
from daemon.store.env import FILE_NAME, Environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from daemon.app.config import Config

State: TypeAlias = Literal["ok", "warn", "fail"]

DISTRIBUTION: Final = "atlas-daemon"
_OLDEST_PYTHON: Final = (3, 11)
_LIBRARIES: Final = ("aiohttp", "lmdb", "msgspec", "numba", "numpy", "pyarrow", "TA-Lib", "uvloop")
_FEW_FILES: Final = 256
_SOME_FILES: Final = 1_024
_SKEW_S: Final = 2.0
_AHEAD_S: Final = 60.0
_DRIFT_S: Final = 0.05
_LOOK_S: Final = 0.1
_EPOCH_S: Final = 1_735_689_600.0
"""2025-01-01, which is before this program was written."""

_NEARLY_FULL: Final = 0.9
_MIB: Final = 1 << 20
_GIB: Final = 1 << 30


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at. found: what there is; remedy: what to do, empty where nothing is."""

    check: str
    status: State
    found: str
    remedy: str = ""


def examine(chosen: Path | None, load: Callable[[], Config]) -> list[Finding]:
    """Look at everything. chosen: `--data-dir`. load: reads the configuration; its ConfigError is a finding too."""
    findings = [*_python(), _files(), *_guarded("kernel cache", _cache)]
    try:
        config = load()
    except ConfigError as error:
        return [*findings, Finding("configuration", "fail", error.message, "correct the file that is named")]
    folder = config.data_dir(chosen)
    findings.append(Finding("configuration", "ok", "all layers can be read"))
    checks: tuple[tuple[str, Callable[[], Iterator[Finding]]], ...] = (
        ("strategies", lambda: _strategies(config)),
        ("data folder", lambda: _folder(folder)),
        ("token", lambda: _token(folder)),
        ("disk", lambda: _disk(folder)),
        ("clock", lambda: _clock(folder)),
        ("store", lambda: _store(folder, config)),
        ("daemon", lambda: _daemon(folder)),
        ("port", lambda: _port(folder, config)),
        ("secrets", lambda: _secrets(config)),
    )
    for name, check in checks:
        findings += _guarded(name, check)
    return findings


def _guarded(name: str, check: Callable[[], Iterator[Finding]]) -> list[Finding]:
    """Look at one thing; that it cannot be looked at is a finding."""
    try:
        return list(check())
    except AtlasError as error:
        return [Finding(name, "fail", error.message, f"docs/errors.md has {error.code}")]
    except OSError as error:
        return [
            Finding(name, "fail", f"{error.filename or name}: {error.strerror}", "look at the folder's owner and mode")
        ]


# The program.


def _python() -> Iterator[Finding]:
    found = f"{platform.python_implementation()} {platform.python_version()} on {platform.platform(terse=True)}"
    if sys.version_info < _OLDEST_PYTHON:
        yield Finding("python", "fail", found, "install Python 3.11 or newer")
    else:
        yield Finding("python", "ok", found)
    yield _libraries()


def _libraries() -> Finding:
    """Say which versions there are of what matters most, and what is missing of all that is needed."""
    versions = {name: _version(name) for name in _LIBRARIES if name != "uvloop" or sys.platform != "win32"}
    try:
        wanted = [line for line in metadata.requires(DISTRIBUTION) or () if "extra ==" not in line]
    except metadata.PackageNotFoundError:  # a checkout, or a frozen app, that nobody installed
        wanted = list(versions)
    names = {_name(line) for line in wanted if "sys_platform" not in line or sys.platform != "win32"}
    missing = sorted(name for name in names if _version(name) is None)
    found = f"atlasd {daemon.__version__}, " + ", ".join(
        f"{name} {version}" for name, version in versions.items() if version
    )
    if missing:
        remedy = "install atlasd again, into an environment of its own"
        return Finding("libraries", "fail", f"missing: {', '.join(missing)}; {found}", remedy)
    return Finding("libraries", "ok", found)


def _name(requirement: str) -> str:
    """Return the name of a requirement: all before its versions, extras and conditions."""
    return requirement[: next((at for at, each in enumerate(requirement) if each in "<>=!~[;( "), len(requirement))]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _files() -> Finding:
    if sys.platform == "win32":
        return Finding("open files", "ok", "this system has no limit that matters")
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = "no limit" if soft == resource.RLIM_INFINITY else f"{soft:,} may be open at a time"
    most = "unlimited" if hard == resource.RLIM_INFINITY else f"{hard}"
    remedy = f"each connection takes one: `ulimit -n {_SOME_FILES}` before the start (at most {most})"
    if soft != resource.RLIM_INFINITY and soft < _SOME_FILES:
        return Finding("open files", "fail" if soft < _FEW_FILES else "warn", found, remedy)
    return Finding("open files", "ok", found)


def _cache() -> Iterator[Finding]:
    wiring.check_cache()
    folder = daemon.KERNEL_CACHE
    found = f"{folder}{_mode(folder)}"
    if wiring.is_cache_cold():
        yield Finding("kernel cache", "warn", f"{found} is empty", "`atlasd warmup` compiles all kernels now")
    else:
        yield Finding("kernel cache", "ok", found)


# The data folder.


def _strategies(config: Config) -> Iterator[Finding]:
    yield Finding("strategies", "ok", f"{len(wiring.rule_book(config))} are loaded")


def _folder(folder: Path) -> Iterator[Finding]:
    if not folder.exists():
        yield Finding("data folder", "ok", f"{folder} is made at the first start")
        return
    found = f"{folder}{_mode(folder)}"
    remedy = f"chmod 700 {folder}"
    mode = 0 if sys.platform == "win32" else folder.stat().st_mode
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        yield Finding("data folder", "fail", f"{found} cannot be written to", "choose another --data-dir, or its owner")
    elif mode & (stat.S_IWGRP | stat.S_IWOTH):
        yield Finding("data folder", "fail", f"{found}: others may write to it", remedy)
    elif mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield Finding("data folder", "warn", f"{found}: others may look into it", remedy)
    else:
        yield Finding("data folder", "ok", found)


def _token(folder: Path) -> Iterator[Finding]:
    path = folder / tokens.FILE_NAME
    if not path.exists():
        yield Finding("token", "ok", f"{path} is made at the first start")
        return
    try:
        tokens.TokenFile(folder).read()
    except ConfigError as error:
        yield Finding("token", "fail", error.message, "`atlasd token --rotate`, and give clients the new one")
    else:
        yield Finding("token", "ok", f"{path}{_mode(path)}")


def _disk(folder: Path) -> Iterator[Finding]:
    existing = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    usage = shutil.disk_usage(existing)
    found = f"{usage.free / _GIB:,.1f} of {usage.total / _GIB:,.1f} GiB are free at {existing}"
    remedy = "make room, let [retention] delete old ticks, or choose another --data-dir"
    state: State = "fail" if usage.free < NO_DISK_BYTES else "warn" if usage.free < LITTLE_DISK_BYTES else "ok"
    yield Finding("disk", state, found, "" if state == "ok" else remedy)


def _clock(folder: Path) -> Iterator[Finding]:
    """Compare the clock with itself, with one that cannot be set, and with that of the file system."""
    remedy = "let the system set its clock by NTP"
    began_s, began_ticks_s = time.time(), time.monotonic()
    if began_s < _EPOCH_S:
        yield Finding("clock", "fail", f"it says {time.strftime('%Y-%m-%d', time.gmtime(began_s))}", remedy)
        return
    time.sleep(_LOOK_S)
    drift_s = (time.time() - began_s) - (time.monotonic() - began_ticks_s)
    if abs(drift_s) > _DRIFT_S:
        yield Finding("clock", "warn", f"it was set by {1e3 * drift_s:+.0f} ms while it was looked at", remedy)
        return
    where = folder if os.access(folder, os.W_OK) else Path(tempfile.gettempdir())
    with tempfile.TemporaryFile(dir=where) as file:
        skew_s = os.fstat(file.fileno()).st_mtime - time.time()
    stored = folder / FILE_NAME
    ahead_s = stored.stat().st_mtime - time.time() if stored.exists() else 0.0
    if abs(skew_s) > _SKEW_S:
        found = f"the file system of {where} is {skew_s:+.1f} s off: it may be another machine's"
        yield Finding("clock", "warn", found, "put the data folder on a disk of this machine, or set both clocks")
    elif ahead_s > _AHEAD_S:
        found = f"{stored} was written {ahead_s:,.0f} s from now: the clock was ahead then, or is behind now"
        yield Finding("clock", "warn", found, remedy)
    else:
        yield Finding("clock", "ok", f"steady, {1e3 * skew_s:+.0f} ms from the file system's; no network was asked")


def _store(folder: Path, config: Config) -> Iterator[Finding]:
    if not (folder / FILE_NAME).exists():
        yield Finding("store", "ok", f"{folder / FILE_NAME} is made at the first import")
        return
    with Environment(folder, config.store, readonly=True) as env:
        used, mapped, most = env.size_bytes(), env.map_bytes(), env.most_bytes
    found = f"opens; {used / _MIB:,.1f} MiB in use, map of {mapped / _GIB:,.2f} GiB, may grow to {most / _GIB:,.0f} GiB"
    if used > _NEARLY_FULL * most:
        yield Finding("store", "warn", found, "raise store.max_map_gb, or delete runs and ticks")
    else:
        yield Finding("store", "ok", found)


# Who is there.


def _daemon(folder: Path) -> Iterator[Finding]:
    owner = read_owner(folder) if folder.exists() and is_held(folder) else None
    if owner is None:
        yield Finding("daemon", "ok", "none runs over this folder")
        return
    try:
        ready = client.running(folder)
    except AtlasError:
        found = f"process {owner.pid} (atlasd {owner.command}) has the folder, and serves nobody"
        yield Finding("daemon", "ok", found)
        return
    try:
        state = client.health(ready, folder)
    except AtlasError as error:
        remedy = "`atlasd logs` says what it does; stop it with SIGTERM and start it again"
        yield Finding("daemon", "fail", error.message, remedy)
        return
    found = f"process {ready.pid} at {ready.url}, release {ready.version}, says {state.status}"
    if ready.version != daemon.__version__:
        yield Finding("daemon", "warn", found, f"restart it: this is release {daemon.__version__}")
    elif state.status != "ok":
        yield Finding("daemon", "warn", found, "`atlasd status` says why")
    else:
        yield Finding("daemon", "ok", found)


def _port(folder: Path, config: Config) -> Iterator[Finding]:
    from daemon.api.server import listen

    host, port = config.http.host, config.http.port
    ready = client.find(folder) if folder.exists() and is_held(folder) else None
    if ready is not None and ready.port == port:
        yield Finding("port", "ok", f"{port} is the daemon's that runs")
        return
    try:
        for each in listen(host, port):
            each.close()
    except ConfigError as error:
        yield Finding("port", "fail", error.message, "stop the other program, or set http.port; 0 takes any free one")
    else:
        yield Finding("port", "ok", f"{host} port {port or '0 (any)'} is free")


def _secrets(config: Config) -> Iterator[Finding]:
    held = keychain.held(config)
    words = ", ".join(f"{each.name}: {each.source or 'not set'}" for each in held)
    yield Finding("secrets", "ok", words)


def _mode(path: Path) -> str:
    return "" if sys.platform == "win32" else f" (mode {stat.S_IMODE(path.stat().st_mode):04o})"
