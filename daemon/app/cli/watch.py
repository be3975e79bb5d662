"""`atlasd watch`: run a configuration again whenever it, or the strategy file that it names, is saved."""

from __future__ import annotations

import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import typer

from daemon.app.cli.options import DataDir, Format

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daemon.app.config import Config
    from daemon.app.rerunning import Attempt, Reruns, WatchedFiles
    from daemon.core.backtest import BacktestSpec
    from daemon.core.errors import AtlasError
    from daemon.core.market import TsNs
    from daemon.research.backtest_diff import Difference
    from daemon.research.rerunning import Rerun
    from daemon.research.strategies import RuleBook

_NS_PER_MS: Final = 1_000_000
_INDENT: Final = " " * 10
_MOST_FIELDS: Final = 12
_STRATEGY_FILE: Final = ".py"


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command("watch")(watch)


def watch(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A configuration (.json), or a strategy of your own (.py).")
    ],
    config: Annotated[
        list[Path] | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="The configuration (.json) that a strategy file runs with, NAME.json beside NAME.py unless given; a "
            "config.toml (.toml) goes over your own.",
            show_default=False,
        ),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Go over a field, such as backtest.commission=0.0005; repeat."),
    ] = None,
    parameters: Annotated[
        list[str] | None,
        typer.Option("--param", metavar="NAME=VALUE", help="Set a parameter, such as take_profit=0.02; repeat."),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Store every result, as `atlasd backtest` does.")] = False,  # noqa: FBT002
    validate: Annotated[bool, typer.Option("--validate", help="Do what the configuration's validation asks.")] = False,  # noqa: FBT002
    form: Annotated[Format, typer.Option("--format", help="Lines to read, or one JSON object a line.")] = Format.TABLE,
    data_dir: DataDir = None,
) -> None:
    """Run a backtest again whenever its file is saved, and show what changed. Ctrl-C ends it.

    Results are not stored, and their tries are not counted, unless --keep says so. Validation is left out unless
    --validate asks for it.
    """
    from daemon.app import wiring
    from daemon.app.config import load

    if form is Format.CSV:
        raise typer.BadParameter("lines or json: --format json", param_hint="--format")
    source = _source(file, config or [])
    wanted = _Wanted(source, tuple(assignments or ()), tuple(parameters or ()), validates=validate)
    settings = load(source.toml)
    wiring.check_cache()
    kept = "results are stored" if keep else "results are not stored (--keep stores them)"
    beside = "" if source.strategy is None else f" with {source.config}"
    typer.echo(f"watching {file}{beside}: {kept}; Ctrl-C ends it", err=True)
    try:
        folder = settings.data_dir(data_dir)
        with _reruns(settings, folder, keep=keep, validate=validate) as reruns:
            _Watch(wanted, reruns, settings, wiring.rule_book(settings, folder), form).go_on()
    except KeyboardInterrupt:
        return


class _Source(NamedTuple):
    """Files that a run comes from. strategy: None where the configuration alone says what is traded."""

    config: Path
    strategy: Path | None
    toml: Path | None


def _source(file: Path, given: list[Path]) -> _Source:
    from daemon.core.errors import Code, NotFound

    by_suffix: dict[str, Path] = {}
    for path in given:
        suffix = path.suffix.lower()
        if suffix not in (".json", ".toml") or suffix in by_suffix:
            raise typer.BadParameter("give one .json and one .toml at the most", param_hint="--config")
        by_suffix[suffix] = path
    is_strategy = file.suffix.lower() == _STRATEGY_FILE
    beside = file.with_suffix(".json")
    if is_strategy and ".json" not in by_suffix:
        if not beside.is_file():
            raise typer.BadParameter(
                f"a strategy file needs a configuration, which says what it trades: {beside.name} beside it, or "
                "--config CONFIG.json"
            )
        by_suffix[".json"] = beside
    if not is_strategy and ".json" in by_suffix:
        raise typer.BadParameter(f"{file.name} is a configuration: --config CONFIG.json goes with a strategy file")
    source = _Source(by_suffix.get(".json", file), file if is_strategy else None, by_suffix.get(".toml"))
    for watched in (source.config, source.strategy):
        if watched is not None and not watched.is_file():
            raise NotFound(Code.SOURCE_NOT_FOUND, f"there is no file {watched} to watch")
    return source


class _Wanted:
    """What is run, read anew at every save."""

    def __init__(
        self, source: _Source, assignments: tuple[str, ...], parameters: tuple[str, ...], *, validates: bool
    ) -> None:
        self._source = source
        self._assignments = assignments
        self._parameters = parameters
        self._validates = validates
        self.files: list[Path] = [path for path in source[:2] if path is not None]

    def read(self) -> dict[str, Any]:
        """Read the configuration; `files` are those that it comes from, whatever else is wrong with it.

        Errors as of `read_configuration`.
        """
        from daemon.app.cli.backtest import point_of, read_configuration

        source = self._source
        wanted = read_configuration(str(source.config), self._assignments)
        strategy = wanted.get("strategy")
        if source.strategy is not None:
            known = strategy if isinstance(strategy, dict) else {}
            strategy = wanted["strategy"] = known | {"file": str(source.strategy.absolute())}
        named = strategy.get("file") if isinstance(strategy, dict) else None
        self.files = [source.config]
        if isinstance(named, str) and named:
            self.files.append(source.config.parent / named)
        if self._parameters:
            wanted["point"] = wanted.get("point", {}) | point_of(self._parameters)
        if not self._validates:
            wanted.pop("validation", None)
        return wanted


@contextmanager
def _reruns(settings: Config, folder: Path, *, keep: bool, validate: bool) -> Iterator[Reruns]:
    """Open what runs: whoever writes, or a worker process beside the store that is open to read."""
    import tempfile

    from daemon.app import wiring
    from daemon.app.rerunning import StoredReruns, UnstoredReruns
    from daemon.research.executors import ProcessExecutor
    from daemon.research.rerunning import Rerunner
    from daemon.research.worker import WorkerSetup
    from daemon.store.bars import BarStore

    if keep:
        with wiring.writer(settings, folder, "watch", "processes", 1) as writer:
            yield StoredReruns(BarStore(writer.ticks.env), writer)
        return
    with wiring.reader(settings, folder) as store, tempfile.TemporaryDirectory(prefix="atlasd-") as spools:
        # Specifications are whole when they are sent: only what varies their parameters looks into the book.
        book = tuple(wiring.rule_book(settings)) if validate else ()
        own = wiring.strategy_folder(settings, folder).path
        setup = WorkerSetup(folder, settings.store, book, Rerunner, own)
        executor = ProcessExecutor(setup, 1, settings.backtest.memory_bytes)
        executor.start()
        try:
            yield UnstoredReruns(
                store.bars,
                executor,
                Path(spools) / "rows.spool",
                settings.probe.risk_profiles,
                settings.strategies.budget,
            )
        finally:
            executor.close()


class _Shown(NamedTuple):
    """What a run showed, for the next one to be compared with."""

    rerun: Rerun
    spec: BacktestSpec


class _Watch:
    """The loop: wait for a save, run, tell."""

    def __init__(self, wanted: _Wanted, reruns: Reruns, settings: Config, book: RuleBook, form: Format) -> None:
        from daemon.app.rerunning import WatchedFiles

        self._wanted = wanted
        self._reruns = reruns
        self._profiles = settings.probe.risk_profiles
        self._book = book
        self._form = form
        self._files: WatchedFiles = WatchedFiles()
        self._number = 0
        self._before: _Shown | None = None

    def go_on(self) -> None:
        """Run, and run again at every save, until the user ends it."""
        from daemon.app.rerunning import POLL_S

        self._files.watch(self._wanted.files)
        changed_ns: TsNs | None = time.time_ns()
        while True:
            if changed_ns is not None:
                changed_ns = self._run(changed_ns)
                continue
            time.sleep(POLL_S)
            changed_ns = self._files.changed_ns()
            for path in self._files.missing():
                typer.echo(f"{path} is not there, or empty: waiting for it", err=True)

    def _run(self, changed_ns: TsNs) -> TsNs | None:
        """Run once; returns the time of a save that came meanwhile, and made the run one of yesterday's."""
        from daemon.core.errors import AtlasError
        from daemon.research.backtest_config.given import with_given
        from daemon.research.parameters import read_specification

        try:
            try:
                wanted = self._wanted.read()
            finally:
                self._files.watch(self._wanted.files)
            if self._book.own is not None:
                wanted = with_given(wanted, self._wanted.files[0].parent, self._book.own)
            spec = read_specification(wanted, self._reruns.bars, self._book, self._profiles)
            rerun, later_ns = self._attended(self._reruns.begin(spec, wanted))
        except AtlasError as error:
            self._number += 1
            self._say_error(error, changed_ns)
            return None
        if rerun is not None:
            self._number += 1
            self._say(_Shown(rerun, spec), changed_ns)
            self._before = _Shown(rerun, spec)
        return later_ns

    def _attended(self, attempt: Attempt) -> tuple[Rerun | None, TsNs | None]:
        from daemon.app.rerunning import POLL_S

        try:
            while (rerun := attempt.result(POLL_S)) is None:
                if (later_ns := self._files.changed_ns()) is not None:
                    attempt.cancel()
                    return None, later_ns
        except KeyboardInterrupt:
            attempt.cancel()
            raise
        return rerun, None

    # What is told.

    def _say(self, shown: _Shown, changed_ns: TsNs) -> None:
        import msgspec

        changed = _changed(self._before, shown)
        if self._form is Format.JSON:
            fields = [{"field": each.field, "before": each.first, "after": each.second} for each in changed]
            before = None if self._before is None else msgspec.to_builtins(self._before.rerun)
            told = {"run": self._number, "elapsed_ms": _elapsed_ms(changed_ns)}
            self._line(told | msgspec.to_builtins(shown.rerun) | {"before": before, "changed": fields})
            return
        rerun, before = shown.rerun, self._before.rerun if self._before else None
        forms = (
            ("return", "total_return_percent", "+.2f", " %"),
            ("Sharpe", "sharpe_ratio", ".2f", ""),
            ("drawdown", "max_drawdown_percent", ".2f", " %"),
            ("trades", "total_trades", ",d", ""),
        )
        figures = [
            _figure(word, getattr(rerun, name), getattr(before, name, None), written, unit)
            for word, name, written, unit in forms
        ]
        told_of = [rerun.verdict] if rerun.verdict else []
        told_of += [f"backtest {rerun.id}"] if rerun.id else []
        elapsed = f"{_elapsed_ms(changed_ns):.0f} ms"
        self._text("   ".join([*figures, *told_of, elapsed]))
        for each in changed[:_MOST_FIELDS]:
            typer.echo(f"{_INDENT}{each.field}: {_word(each.first)} -> {_word(each.second)}")
        if len(changed) > _MOST_FIELDS:
            typer.echo(f"{_INDENT}and {len(changed) - _MOST_FIELDS} more")
        if before is not None and before.fingerprint == rerun.fingerprint:
            typer.echo(f"{_INDENT}the same as before, trade for trade")

    def _say_error(self, error: AtlasError, changed_ns: TsNs) -> None:
        if self._form is Format.JSON:
            said = {"code": str(error.code), "message": error.message}
            self._line({"run": self._number, "elapsed_ms": _elapsed_ms(changed_ns), "error": said})
        else:
            self._text(f"error: {error.message} [{error.code}]")

    def _text(self, line: str) -> None:
        typer.echo(f"{time.strftime('%H:%M:%S')}  {line}")

    def _line(self, told: dict[str, Any]) -> None:
        import msgspec

        typer.echo(msgspec.json.encode(told).decode())


def _changed(before: _Shown | None, shown: _Shown) -> list[Difference]:
    """Say in which fields two specifications differ, as they were understood."""
    import msgspec

    from daemon.research.backtest_diff import leaves, unlike

    if before is None or before.spec == shown.spec:
        return []
    plain = (dict(leaves("", msgspec.to_builtins(each.spec))) for each in (before, shown))
    return [each for each in unlike("configuration", *plain) if not each.field.startswith("readings")]


def _figure(name: str, value: float | None, before: float | None, form: str, unit: str) -> str:
    if value is None:
        return f"{name} none"
    was = "" if before is None or before == value else f" (was {before:{form}}{unit})"
    return f"{name} {value:{form}}{unit}{was}"


def _word(value: object) -> str:
    return "none" if value is None else str(value)[:60]


def _elapsed_ms(changed_ns: TsNs) -> float:
    """Return the time from a file's change until now."""
    return round((time.time_ns() - changed_ns) / _NS_PER_MS, 3)
