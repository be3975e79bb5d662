"""Ways in that a running daemon has part in: a new token, and the console's page in a browser."""

from __future__ import annotations

import html
import os
from typing import TYPE_CHECKING, Final

from daemon.api import messages
from daemon.app import client
from daemon.app.lock import is_held
from daemon.app.tokens import TokenFile
from daemon.core.errors import Code, SourceUnavailable, Unauthorized

if TYPE_CHECKING:
    from pathlib import Path

CONSOLE_FILE: Final = "open.html"
_ANSWERS_TO_ALL: Final = "/api/v1/feeds"
_PATIENCE_S: Final = 10.0

# A file of the user's own, since an argument of the browser's could be read by every user of the machine.
_PAGE: Final = """<!doctype html>
<meta charset="utf-8">
<meta name="referrer" content="no-referrer">
<meta http-equiv="refresh" content="0; url={address}">
<title>Atlas console</title>
<p><a href="{address}">Open the console</a>: this works once, within a minute; <code>atlasd open</code> makes another.
"""


def rotate(folder: Path) -> str:
    """Make a new token, and return it once a running daemon takes it in the place of the old one.

    SourceUnavailable DAEMON_UNREACHABLE where a daemon runs and does not.
    """
    token = TokenFile(folder).rotate()
    ready = client.find(folder) if is_held(folder) else None
    if ready is not None:
        try:
            client.ask(ready, folder, "GET", _ANSWERS_TO_ALL, messages.FeedList, timeout_s=_PATIENCE_S)
        except (SourceUnavailable, Unauthorized) as error:
            raise SourceUnavailable(
                Code.DAEMON_UNREACHABLE,
                f"the new token is written, but the daemon (process {ready.pid}) does not take it: stop the daemon, "
                "and the old token ends with it",
            ) from error
    return token


def console_file(folder: Path) -> Path:
    """Write the file that leads a browser into the console of the running daemon; returns its path.

    SourceUnavailable DAEMON_UNREACHABLE where none runs.
    """
    ready = client.running(folder)
    got = client.ask(ready, folder, "POST", "/api/v1/session/code", messages.SessionCode)
    path = folder / CONSOLE_FILE
    path.unlink(missing_ok=True)
    address = html.escape(f"{ready.url}/#code={got.code}")
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(_PAGE.format(address=address))
    return path.absolute()
