"""The house's own rules: style, types, the layers, and what ships."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from daemon.core.errors import Code

ROOT = Path(__file__).parents[2]


def run(*command: str) -> None:
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff_finds_nothing():
    run("ruff", "check", "--no-cache", ".")


def test_the_code_is_formatted():
    run("ruff", "format", "--check", "--no-cache", ".")


def test_mypy_strict_finds_nothing():
    run("mypy")


def test_every_room_keeps_to_its_layer():
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_files_stay_short_enough_to_be_read():
    long = {
        str(path.relative_to(ROOT)): lines
        for folder in ("daemon", "adapters")
        for path in (ROOT / folder).rglob("*.py")
        if (lines := len(path.read_text().splitlines())) > 450
    }
    assert not long


def test_every_error_code_is_documented():
    documented = set(re.findall(r"^\| `([A-Z_]+)` \|", (ROOT / "docs" / "errors.md").read_text(), re.MULTILINE))
    assert documented == set(Code)


def test_every_dependency_is_declared_and_used():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[<>=;\[ ]", line)[0].lower() for line in project["dependencies"]}
    modules = {"ta-lib": "talib", "fpdf2": "fpdf", "prometheus-client": "prometheus_client"}
    sources = "\n".join(path.read_text() for folder in ("daemon", "adapters") for path in (ROOT / folder).rglob("*.py"))
    for name in declared:
        module = modules.get(name, name)
        assert re.search(rf"^\s*(from|import) {module}\b", sources, re.MULTILINE), f"{name} is declared, not used"


@pytest.mark.parametrize("word", ["TODO", "FIXME", "XXX"])
def test_nothing_is_left_to_be_done(word):
    for folder in ("daemon", "adapters"):
        for path in (ROOT / folder).rglob("*.py"):
            assert word not in path.read_text(), path
