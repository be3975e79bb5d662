"""Who may ask: the token's file, sessions and codes by an injected clock, and how much may be asked in a second."""

import asyncio
import os
import stat
import sys
import threading

import pytest

from daemon.api import auth
from daemon.api.auth import CODE_S, SESSION_S, Access, Grant, new_secret
from daemon.api.limits import BodyBytes, JobStarts
from daemon.app.lock import WriterLock, is_held
from daemon.app.tokens import TokenFile
from daemon.core.errors import Code, ConfigError, TooManyRequests

posix = pytest.mark.skipif(sys.platform == "win32", reason="modes are those of POSIX")


class Clock:
    def __init__(self):
        self.now_s = 1000.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def stored():
    return [new_secret()]


@pytest.fixture
def access(stored, clock):
    return Access(lambda: stored[0], clock)


@pytest.fixture
def umask_000():
    before = os.umask(0)
    yield
    os.umask(before)


# The token.


def test_a_secret_has_256_bits_and_fits_a_header_a_subprotocol_and_a_fragment():
    secrets = {new_secret() for _ in range(1000)}
    assert len(secrets) == 1000
    assert all(
        len(each) == 43 and each.replace("-", "").replace("_", "").isalnum() and each.isascii() for each in secrets
    )


def test_the_token_grants_and_nothing_near_it_does(access, stored):
    token = stored[0]
    assert access.grant(token) == Grant("token")
    near = [
        "",
        " ",
        token[:-1],
        token + "a",
        token.swapcase(),
        f"{token}\n",
        "é",
        "\udc80\udcff",
        "\x00" * 43,
        "a" * 10**6,
    ]
    assert not any(access.check_token(text) for text in near)


def test_the_token_is_compared_in_constant_time(access, stored, monkeypatch):
    compared = []

    def compare(left, right):
        compared.append((left, right))
        return False

    monkeypatch.setattr(auth.hmac, "compare_digest", compare)
    assert not access.check_token("guess")
    assert (b"guess", stored[0].encode()) in compared


def test_failed_logins_lock_nobody_out(access, stored):
    assert not any(access.check_token(f"guess {number}") for number in range(10_000))
    assert access.check_token(stored[0])


def test_a_rotated_token_ends_the_old_one_sessions_and_codes_and_tells_the_sockets(access, stored):
    old, told = stored[0], []
    leave = access.on_rotation(lambda: told.append("socket"))
    session, code = access.redeem(access.issue_code()), access.issue_code()
    assert not access.refresh()
    stored[0] = new_secret()
    assert access.grant(stored[0]) == Grant("token")  # seen by whoever shows the new one, before any refresh
    assert told == ["socket"]
    assert not access.check_token(old)
    assert not access.check_token(session)
    assert access.redeem(code) is None
    leave()
    stored[0] = new_secret()
    assert access.refresh()
    assert told == ["socket"]


# Codes and sessions.


def test_a_code_is_good_once(access):
    code = access.issue_code()
    session = access.redeem(code)
    assert access.grant(session) == Grant("session")
    assert access.redeem(code) is None
    assert not access.check_token(code)


def test_a_code_is_good_for_a_minute(access, clock):
    code = access.issue_code()
    clock.now_s += CODE_S - 0.001
    assert access.redeem(code) is not None
    late = access.issue_code()
    clock.now_s += CODE_S
    assert access.redeem(late) is None


def test_a_session_lives_as_long_as_it_is_used_and_ends_when_asked(access, clock):
    session = access.redeem(access.issue_code())
    for _ in range(3):
        clock.now_s += SESSION_S - 1
        assert access.check_token(session)
    clock.now_s += SESSION_S
    assert not access.check_token(session)
    other = access.redeem(access.issue_code())
    access.end_session(other)
    assert not access.check_token(other)


def test_sessions_that_are_never_ended_do_not_pile_up(access):
    sessions = [access.redeem(access.issue_code()) for _ in range(1000)]
    valid = [session for session in sessions if access.check_token(session)]
    assert valid == sessions[-len(valid) :]
    assert 10 <= len(valid) <= 100


# The token's file.


@posix
@pytest.mark.usefixtures("umask_000")
def test_the_token_is_its_users_alone_whatever_the_umask_says(tmp_path):
    file = TokenFile(tmp_path / "new")
    file.ensure()
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.path.parent.stat().st_mode) == 0o700
    file.rotate()
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert [path.name for path in file.path.parent.iterdir()] == ["token"]


def test_the_token_stays_until_it_is_rotated(tmp_path):
    first = TokenFile(tmp_path).ensure()
    assert TokenFile(tmp_path).ensure() == TokenFile(tmp_path).read() == first
    second = TokenFile(tmp_path).rotate()
    assert second != first
    assert TokenFile(tmp_path).ensure() == second


def test_of_many_who_begin_at_once_all_get_the_same_token(tmp_path):
    found, start = [], threading.Barrier(16)

    def begin():
        start.wait()
        found.append(TokenFile(tmp_path).ensure())

    threads = [threading.Thread(target=begin) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 16
    assert len(set(found)) == 1


@posix
@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o1777])
def test_a_folder_that_others_may_write_to_is_refused(tmp_path, mode):
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(ConfigError, match="chmod 700") as refused:
        TokenFile(folder).ensure()
    assert refused.value.code is Code.DATA_DIR_SHARED
    assert not list(folder.iterdir())


@posix
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o602, 0o660])
def test_a_token_that_others_could_read_is_refused_until_it_is_rotated(tmp_path, mode):
    file = TokenFile(tmp_path)
    file.ensure()
    file.path.chmod(mode)
    with pytest.raises(ConfigError, match="--rotate") as refused:
        TokenFile(tmp_path).ensure()
    assert refused.value.code is Code.TOKEN_UNUSABLE
    file.rotate()
    assert TokenFile(tmp_path).ensure()


@posix
def test_a_token_is_not_read_through_a_link(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine").write_text(new_secret())
    (elsewhere / "mine").chmod(0o600)
    (tmp_path / "token").symlink_to(elsewhere / "mine")
    with pytest.raises(ConfigError) as refused:
        TokenFile(tmp_path).ensure()
    assert refused.value.code is Code.TOKEN_UNUSABLE


@pytest.mark.parametrize("content", [b"", b"short\n", b"a" * 42, b"a" * 200, b"\xff" * 43, b"a" * 43 + b" b"])
def test_a_file_that_holds_no_token_is_refused(tmp_path, content, monkeypatch):
    monkeypatch.setattr("daemon.app.tokens._WRITTEN_S", 0.0)
    (tmp_path / "token").write_bytes(content)
    (tmp_path / "token").chmod(0o600)
    with pytest.raises(ConfigError, match="holds no token"):
        TokenFile(tmp_path).ensure()


def test_a_token_whose_file_is_lost_stays_valid_while_the_daemon_runs(tmp_path):
    file = TokenFile(tmp_path)
    token = file.ensure()
    assert file.current() == token
    file.path.unlink()
    assert file.current() == token
    file.path.write_text("broken")
    assert file.current() == token
    assert TokenFile(tmp_path).rotate() == file.current() != token


def test_whether_somebody_writes_to_a_folder_is_known_without_disturbing_them(tmp_path):
    with WriterLock(tmp_path, "serve"):
        assert is_held(tmp_path)
    assert not is_held(tmp_path)
    with WriterLock(tmp_path, "serve"):
        pass


# How much.


def test_of_many_starts_in_any_second_the_rest_is_told_when_to_come_back(clock):
    starts = JobStarts(10, clock)
    for _ in range(10):
        clock.now_s += 0.05
        with starts.one():
            pass
    with pytest.raises(TooManyRequests) as refused, starts.one():
        pytest.fail("an eleventh was let in")
    wait_s = refused.value.details["retry_after_s"]
    assert 0 < wait_s <= 1
    clock.now_s += wait_s
    with starts.one():
        pass
    with pytest.raises(TooManyRequests), starts.one():
        pytest.fail("the second is not over for the others")


def test_starts_that_fail_do_not_count(clock):
    starts = JobStarts(1, clock)
    for _ in range(5):
        with pytest.raises(ValueError, match="wrong"), starts.one():
            raise ValueError("wrong")
    with starts.one():
        pass


def test_a_start_counts_though_its_client_hangs_up_meanwhile(clock):
    starts = JobStarts(1, clock)
    with pytest.raises(asyncio.CancelledError), starts.one():
        raise asyncio.CancelledError
    with pytest.raises(TooManyRequests), starts.one():
        pytest.fail("hanging up made room for another")


def test_bytes_are_taken_whole_and_paid_for_afterwards(clock):
    bodies = BodyBytes(1000, clock)
    for size in (900, 5000):
        bodies.check()
        bodies.count(size)
    with pytest.raises(TooManyRequests) as refused:
        bodies.check()
    clock.now_s += refused.value.details["retry_after_s"]
    bodies.check()
