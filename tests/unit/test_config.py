"""Configuration by layers; what is wrong is named with file, key and what is allowed."""

import re
import tomllib
import typing
from pathlib import Path

import msgspec
import pytest

from daemon.app import config
from daemon.app.config import Config
from daemon.core.errors import Code, ConfigError
from daemon.core.strategy import RiskProfile

SHIPPED = Path(__file__).parents[2] / "config.toml"


@pytest.fixture(autouse=True)
def no_user_file(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("ATLASD_DATA_DIR", raising=False)


@pytest.fixture
def write(tmp_path):
    def write(text, path=tmp_path / "own.toml"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


def test_the_shipped_defaults_are_complete_and_the_documents_scales():
    loaded = config.load()
    assert loaded.http.port == 8080
    assert loaded.probe.risk_profiles == {
        "low": RiskProfile(stop_scale=0.75, target_scale=0.75, trailing_scale=0.75, time_scale=0.6),
        "medium": RiskProfile(),
        "high": RiskProfile(stop_scale=1.5, target_scale=1.5, trailing_scale=1.5, time_scale=1.5),
    }
    stated = tomllib.loads(SHIPPED.read_text())
    for section, kind in typing.get_type_hints(Config).items():
        if section == "feeds":
            assert stated[section] == {}
            continue
        assert list(stated[section]) == [field.name for field in msgspec.structs.fields(kind)], section


def test_every_key_of_the_shipped_file_has_a_comment():
    previous = ""
    for line in SHIPPED.read_text().splitlines():
        if re.match(r"[a-z_]+ = ", line) and line.split(" ")[0] not in ("medium", "high", "backups"):
            assert previous.startswith("#"), line
        previous = line


def test_layers_override_key_by_key(write):
    write("[http]\nport = 1\n[log]\nlevel = 'debug'\n[probe.risk_profiles.low]\nstop_scale = 0.5\n", config.user_file())
    loaded = config.load(write("[http]\nport = 2\n[probe.risk_profiles.wild]\nstop_scale = 9\n"))
    assert (loaded.http.host, loaded.http.port, loaded.log.level) == ("127.0.0.1", 2, "debug")
    assert loaded.probe.risk_profiles["low"] == RiskProfile(
        stop_scale=0.5, target_scale=0.75, trailing_scale=0.75, time_scale=0.6
    )
    assert loaded.probe.risk_profiles["wild"] == RiskProfile(stop_scale=9)


def test_placeholders_take_the_environment_in_the_keys_type(write, monkeypatch):
    own = write(
        "[http]\nport = '${OWN_PORT:9}'\nallowed_hosts = '${OWN_HOSTS:}'\n[store]\nsync = '${OWN_SYNC:true}'\n"
        "[data]\ndir = '${OWN_ROOT:/y}/atlas'\n[probe.risk_profiles.low]\nstop_scale = '${OWN_SCALE:0.25}'\n"
    )
    loaded = config.load(own)
    assert (loaded.http.port, loaded.http.allowed_hosts, loaded.store.sync) == (9, [], True)
    assert (loaded.data.dir, loaded.probe.risk_profiles["low"].stop_scale) == ("/y/atlas", 0.25)
    for name, value in {"PORT": "10", "HOSTS": "a, b", "SYNC": "false", "ROOT": "/x", "SCALE": "2"}.items():
        monkeypatch.setenv(f"OWN_{name}", value)
    loaded = config.load(own)
    assert (loaded.http.port, loaded.http.allowed_hosts, loaded.store.sync) == (10, ["a", "b"], False)
    assert (loaded.data.dir, loaded.probe.risk_profiles["low"].stop_scale) == ("/x/atlas", 2.0)


@pytest.mark.parametrize(
    ("text", "key", "allowed"),
    [
        ("[http]\nprot = 1", "http.prot", "allowed here: host, port"),
        ("speed = 1", "speed", "allowed here: data, store"),
        ("[http]\nport = '8080'", "http.port", "a whole number at least 0 at most 65535"),
        ("[http]\nport = 70000", "http.port", "at most 65535"),
        ("[http]\nport = '${NOT_SET:many}'", "http.port", "(from `${NOT_SET:many}`)"),
        ("[http]\nallowed_hosts = 'a'", "http.allowed_hosts", "a list of texts"),
        ("[store]\nsync = 1", "store.sync", "true or false"),
        ("[log]\nlevel = 'loud'", "log.level", '"debug" or "info" or "warning" or "error"'),
        ("http = 3", "http", "a table of keys"),
        ("[probe.risk_profiles.low]\nstop_scale = 0", "probe.risk_profiles.low.stop_scale", "a number above 0"),
        ("[probe.risk_profiles.low]\ntime_scale = inf", "probe.risk_profiles.low.time_scale", "a number above 0"),
        ("[probe.risk_profiles.low]\ntime_scale = nan", "probe.risk_profiles.low.time_scale", "a number above 0"),
        ("[probe.risk_profiles]\nlow = 1", "probe.risk_profiles.low", "a table of keys"),
        ("[http]\nport = 80.5", "http.port", "a whole number"),
        ("[http]\nallowed_hosts = [1]", "http.allowed_hosts", "a list of texts"),
        ("[probe.risk_profiles.low]\nstop = 1", "probe.risk_profiles.low.stop", "allowed here: stop_scale"),
    ],
)
def test_a_wrong_key_or_value_names_file_key_and_what_is_allowed(write, text, key, allowed):
    path = write(text)
    with pytest.raises(ConfigError) as refusal:
        config.load(path)
    assert refusal.value.code == Code.CONFIG_INVALID
    assert refusal.value.message.startswith(f"{path}: {key}: ")
    assert allowed in refusal.value.message
    assert refusal.value.details == {"file": str(path), "key": key}


def test_a_placeholder_may_stand_in_a_list_and_inside_a_text(write, monkeypatch):
    own = write(
        "[http]\nallowed_hosts = ['${OWN_HOST:one}.lan', 'two']\n[data]\ndir = '/a/${OWN_NONE}/${OWN_NONE:b:c}'\n"
    )
    assert config.load(own).http.allowed_hosts == ["one.lan", "two"]
    assert config.load(own).data.dir == "/a//b:c"
    monkeypatch.setenv("OWN_HOST", "a, b")
    assert config.load(own).http.allowed_hosts == ["a, b.lan", "two"]


def test_a_file_that_is_missing_or_no_toml_is_named(write, tmp_path):
    with pytest.raises(ConfigError, match=r"absent.toml: cannot be read"):
        config.load(tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match=r"own.toml: is not TOML: .*line 1"):
        config.load(write("[store\n"))


def test_the_data_folder_is_the_option_then_the_key_then_the_systems(write, monkeypatch):
    assert config.load(write("[data]\ndir = '/a'")).data_dir(Path("/b")) == Path("/b")
    assert config.load(write("[data]\ndir = '/a'")).data_dir() == Path("/a")
    monkeypatch.setenv("ATLASD_DATA_DIR", "/c")
    assert config.load().data_dir() == Path("/c")
    monkeypatch.delenv("ATLASD_DATA_DIR")
    assert config.load().data_dir().name == "atlasd"


def test_retention_of_a_stream_that_does_not_exist_stops_the_start(write):
    path = write("[retention]\nmax_age_days = { trade = 3 }\n")
    with pytest.raises(ConfigError, match=r"`trade` is not one of trades") as caught:
        config.load(path)
    assert str(path) in caught.value.message
