"""Keys of venues: from the environment or the system's keychain, and from no file."""

import io
import json
import sys

import pytest

from daemon.app import config, keychain


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A keychain in a file, instead of the system's; returns the file."""
    import keyring
    from stand_ins.keychain import FileKeychain

    monkeypatch.setenv("TEST_KEYCHAIN", str(tmp_path / "keychain.json"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("ATLASD_BINANCE_API_KEY", raising=False)
    monkeypatch.setattr(keyring, "get_keyring", FileKeychain)
    return tmp_path / "keychain.json"


@pytest.fixture
def given(monkeypatch):
    """Let a secret come by stdin."""

    def give(text):
        monkeypatch.setattr("sys.stdin", io.StringIO(text))

    return give


@pytest.mark.usefixtures("kept")
def test_a_secret_of_the_keychain_is_taken_where_the_environment_has_none(given, atlasd_inside, monkeypatch):
    given("sesame-12345\n")
    done = atlasd_inside("secret", "set", "binance.api_key")
    assert done.returncode == 0, done.stderr
    assert "sesame" not in done.stdout + done.stderr
    assert config.load(None).venues.binance.api_key == "sesame-12345"
    assert config.load(None).binance.api_key == ""  # it is asked for when it is used
    monkeypatch.setenv("ATLASD_BINANCE_API_KEY", "from-outside")
    assert config.load(None).venues.binance.api_key == "from-outside"


@pytest.mark.usefixtures("kept")
def test_secrets_are_listed_by_their_source_and_never_shown(given, atlasd_inside, monkeypatch):
    def source():
        listed = atlasd_inside("secret", "list", "--format", "json").stdout
        assert "sesame" not in listed
        return json.loads(listed)[0]["source"]

    assert source() == "not set"
    given("sesame-12345\n")
    atlasd_inside("secret", "set", "binance.api_key")
    assert source() == "keychain"
    monkeypatch.setenv("ATLASD_BINANCE_API_KEY", "sesame-of-the-environment")
    assert source() == "environment"
    monkeypatch.delenv("ATLASD_BINANCE_API_KEY")
    assert atlasd_inside("secret", "delete", "binance.api_key").returncode == 0
    assert source() == "not set"
    again = atlasd_inside("secret", "delete", "binance.api_key")
    assert (again.returncode, "[SECRET_NOT_FOUND]" in again.stderr) == (1, True)


@pytest.mark.usefixtures("kept")
def test_who_has_no_secret_in_the_keychain_does_not_load_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "keyring", None)  # importing it would fail
    assert config.load(None).venues.binance.api_key == ""
    assert keychain.held(config.load(None))[0].source == ""


@pytest.mark.parametrize("value", ["", "\n", " sesame\n", "two\nlines\n", "x" * 2000, "bell\a\n"])
def test_what_can_be_no_secret_is_refused(kept, given, atlasd_inside, value):
    given(value)
    done = atlasd_inside("secret", "set", "binance.api_key")
    assert (done.returncode, "[INVALID_REQUEST]" in done.stderr) == (2, True)
    assert not kept.exists()


@pytest.mark.usefixtures("kept")
def test_an_unknown_secret_is_refused_with_those_there_are(given, atlasd_inside):
    given("sesame-12345\n")
    done = atlasd_inside("secret", "set", "binance.rest_spot")
    assert done.returncode == 2
    assert "binance.api_key" in done.stderr


@pytest.mark.usefixtures("kept")
def test_without_a_keychain_set_says_what_else_there_is_and_reading_finds_nothing(given, atlasd_inside, monkeypatch):
    import keyring
    from keyring.backends import fail, null

    given("sesame-12345\n")
    atlasd_inside("secret", "set", "binance.api_key")
    for backend in (fail.Keyring, null.Keyring):
        monkeypatch.setattr(keyring, "get_keyring", backend)
        given("sesame-12345\n")
        done = atlasd_inside("secret", "set", "binance.api_key")
        assert (done.returncode, "[KEYCHAIN_UNAVAILABLE]" in done.stderr) == (1, True)
        assert "ATLASD_BINANCE_API_KEY" in done.stderr
        assert config.load(None).venues.binance.api_key == ""


@pytest.mark.parametrize("value", ["sesame-12345", "${OWN:sesame-12345}", "${OWN}sesame-12345", "sesame-${OWN:}"])
def test_a_secret_in_a_file_is_refused_and_not_repeated(tmp_path, atlasd_inside, value):
    own = tmp_path / "own.toml"
    own.write_text(f'[binance]\napi_key = "{value}"\n')
    done = atlasd_inside("status", "--config", own)
    assert done.returncode == 1
    assert "[SECRET_IN_FILE]" in done.stderr
    assert "atlasd secret set binance.api_key" in done.stderr
    assert "sesame" not in done.stderr


@pytest.mark.parametrize("value", ["", "${OWN}", "${OWN:}"])
def test_a_placeholder_may_stand_for_a_secret(tmp_path, monkeypatch, value):
    own = tmp_path / "own.toml"
    own.write_text(f'[binance]\napi_key = "{value}"\n')
    monkeypatch.setenv("OWN", "sesame-12345")
    assert config.load(own).binance.api_key == ("sesame-12345" if value else "")
