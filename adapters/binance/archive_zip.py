"""The container of an archive file: its checksum, and the one CSV inside its zip.

A zip is somebody else's program for our memory: what it claims to hold is bounded before a byte is inflated, and
nothing is ever written to disk.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
import zlib
from pathlib import PurePosixPath, PureWindowsPath
from typing import IO, TYPE_CHECKING, Final, Self, TypeVar

from adapters.shared.refusals import Place, cannot_open, refusal, shown
from daemon.core.errors import Code
from daemon.core.ports import Verification

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from daemon.core.errors import SourceDataInvalid

MAX_TEXT_BYTES: Final = 64 << 30  # Three times the largest month known: 20 GB of spot trades.
MAX_RATIO: Final = 200  # Archive files inflate 4 to 30 times; deflate can reach 1032.

Answer = TypeVar("Answer")

_MAX_CHECKSUM_BYTES = 4096
_CHECKSUM = re.compile(r"(?P<sha256>[0-9a-fA-F]{64}) [ *](?P<name>[^\r\n]+?)(?:\r?\n)?")
_ENCRYPTED = 0x1
_AGAIN = "download it again"


def verify(path: Path, file: str) -> tuple[str, Verification]:
    """Return a file's sha256, and whether the CHECKSUM beside it agrees; UNVERIFIED without one.

    SourceDataInvalid CHECKSUM_DIFFERS, also where the CHECKSUM is another file's; SOURCE_UNREADABLE where it is none.
    """
    beside = path.with_name(path.name + ".CHECKSUM")
    try:
        with path.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        if not beside.exists():
            return sha256, Verification.UNVERIFIED
        with beside.open("rb") as stream:
            text = stream.read(_MAX_CHECKSUM_BYTES)
    except OSError as error:
        raise cannot_open(file, error) from None
    published = _CHECKSUM.fullmatch(text.decode(errors="replace"))
    if published is None:
        why = 'this is not one line of "sha256  name"; download it again, or delete it to import without a check'
        raise refusal(Code.SOURCE_UNREADABLE, Place(shown(beside.name, 255)), why)
    if published["name"] != path.name:
        why = f"the CHECKSUM beside it is that of {shown(published['name'])}; name both files as they were published"
        raise refusal(Code.CHECKSUM_DIFFERS, Place(file), why)
    if published["sha256"].lower() != sha256:
        why = f"its sha256 is {sha256}, the CHECKSUM beside it says {published['sha256'].lower()}"
        why += f": the file is damaged, or both are of different dates; {_AGAIN}, with its CHECKSUM"
        raise refusal(Code.CHECKSUM_DIFFERS, Place(file), why)
    return sha256, Verification.VERIFIED


class Member:
    """The CSV inside a zip, opened anew for each reading, and read within bounds.

    SourceDataInvalid SOURCE_UNREADABLE for what is no sound zip of one CSV, SOURCE_EMPTY where there are no bytes.
    """

    def __init__(self, path: Path, file: str) -> None:
        self._path = path
        self._file = file
        self._zip: zipfile.ZipFile | None = None
        self._stream: IO[bytes] | None = None
        with self:
            self.name = self._sole_member().filename

    def __enter__(self) -> Self:
        self._zip = self._guarded(lambda: zipfile.ZipFile(self._path))
        return self

    def __exit__(self, *_: object) -> None:
        for opened in (self._stream, self._zip):
            if opened is not None:
                opened.close()
        self._stream = self._zip = None

    def read(self, count: int) -> bytes:
        """Return the next bytes, at most so many; none at the end, once their CRC has proved right."""
        stream = self._opened()
        return self._guarded(lambda: stream.read(count))

    def read_line(self, limit: int) -> bytes:
        """Return the next line with its end, at most so many bytes."""
        stream = self._opened()
        return self._guarded(lambda: stream.readline(limit))

    def _opened(self) -> IO[bytes]:
        if self._zip is None:
            raise ValueError("a member is read inside `with`")
        if self._stream is None:
            archive = self._zip
            self._stream = self._guarded(lambda: archive.open(self._sole_member()))
        return self._stream

    def _sole_member(self) -> zipfile.ZipInfo:
        """Return the one member, once its name, size and kind are found acceptable."""
        members = self._zip.infolist() if self._zip else []
        if len(members) != 1:
            raise self._unreadable(f"the zip holds {len(members)} files, an archive file one; {_AGAIN}")
        member = members[0]
        # `orig_filename`: zipfile ends names at a NUL and turns the separators of this system around.
        name = member.orig_filename
        if PurePosixPath(name).name != name or PureWindowsPath(name).name != name or "\0" in name:
            raise self._unreadable(f'the zip holds the path "{shown(name)}", an archive file a bare name; {_AGAIN}')
        if not name.endswith(".csv"):
            raise self._unreadable(f'the zip holds "{shown(name)}", which is no .csv; {_AGAIN}')
        if member.flag_bits & _ENCRYPTED:
            raise self._unreadable(f"the zip is encrypted, which an archive file never is; {_AGAIN}")
        if member.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            raise self._unreadable(f"the zip is compressed by method {member.compress_type}, not deflate; {_AGAIN}")
        self._refuse_bomb(member)
        if member.file_size == 0:
            raise refusal(Code.SOURCE_EMPTY, Place(self._file), f"the file in the zip is empty; {_AGAIN}")
        return member

    def _refuse_bomb(self, member: zipfile.ZipInfo) -> None:
        """Trust the claimed size: zipfile ends a member there, and what was cut off fails its CRC."""
        size = member.file_size
        packed = min(member.compress_size, self._path.stat().st_size)  # what it claims of itself may be a lie, too
        if size > MAX_TEXT_BYTES:
            raise self._unreadable(f"it claims to hold {size:,} bytes, more than the {MAX_TEXT_BYTES:,} that are read")
        if size > MAX_RATIO * max(packed, 1):
            why = f"its {packed:,} bytes claim to hold {size:,}, more than {MAX_RATIO} times as many"
            raise self._unreadable(f"{why}: no archive file does; {_AGAIN}")

    def _guarded(self, act: Callable[[], Answer]) -> Answer:
        """Turn everything that a damaged zip makes zipfile raise into one refusal."""
        try:
            return act()
        except OSError as error:
            raise cannot_open(self._file, error) from None
        except EOFError:
            raise self._unreadable(f"the zip is cut short; {_AGAIN}") from None
        except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, ValueError, OverflowError) as error:
            raise self._unreadable(f"this is no sound zip ({shown(str(error), 200)}); {_AGAIN}") from None

    def _unreadable(self, why: str) -> SourceDataInvalid:
        return refusal(Code.SOURCE_UNREADABLE, Place(self._file), why)
