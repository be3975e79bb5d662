"""Where each value of the configuration came from, and that no secret is told."""

import msgspec
import pytest

from daemon.app.config import load
from daemon.app.config_origins import explained


@pytest.fixture(autouse=True)
def no_user_file(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("ATLASD_DATA_DIR", raising=False)


def told(chosen=None, **http):
    config = load(chosen)
    config = msgspec.structs.replace(config, http=msgspec.structs.replace(config.http, **http))
    return {each.key: each for each in explained(config, chosen)}


def test_what_nobody_changed_is_as_shipped():
    found = told()
    assert {each.origin for each in found.values()} == {"default"}
    assert (found["http.port"].value, found["http.port"].source) == (8080, None)
    assert found["probe.risk_profiles.low.time_scale"].value == 0.6
    assert found["data.dir"].value.endswith("atlasd")


def test_the_last_file_that_has_a_value_is_its_origin(tmp_path):
    user = tmp_path / "config" / "atlasd" / "config.toml"
    user.parent.mkdir(parents=True)
    user.write_text("[http]\nport = 9000\n[workers]\ncount = 3\n")
    chosen = tmp_path / "chosen.toml"
    chosen.write_text("[http]\nport = 9001\n[retention.max_age_days]\ndepth = 30\n")
    found = told(chosen)
    assert (found["http.port"].value, found["http.port"].source) == (9001, str(chosen))
    assert (found["workers.count"].origin, found["workers.count"].source) == ("file", str(user))
    assert found["retention.max_age_days.depth"].source == str(chosen)
    assert found["store.sync"].origin == "default"


def test_the_command_line_and_the_environment_are_named(monkeypatch, tmp_path):
    monkeypatch.setenv("ATLASD_DATA_DIR", str(tmp_path))
    found = told(port=0)
    assert (found["http.port"].value, found["http.port"].origin) == (0, "command line")
    assert (found["data.dir"].value, found["data.dir"].origin) == (str(tmp_path), "environment")
    assert found["data.dir"].source == "ATLASD_DATA_DIR"


def test_no_secret_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("ATLASD_BINANCE_API_KEY", "canary")
    chosen = tmp_path / "chosen.toml"
    chosen.write_text('[coinbase]\nrest = "https://user:canary@proxy.example"\n')
    found = told(chosen)
    assert "canary" not in str(found.values())
    assert found["coinbase.rest"].value.endswith("@proxy.example")
    assert found["binance.api_key"].value == "set, not shown"
