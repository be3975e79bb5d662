"""A keychain in a file, named by the environment, in the place of the system's."""

import json
import os
from pathlib import Path

from keyring.backend import KeyringBackend
from keyring.errors import PasswordDeleteError


class FileKeychain(KeyringBackend):
    priority = 1

    @property
    def _path(self):
        return Path(os.environ["TEST_KEYCHAIN"])

    def _entries(self):
        return json.loads(self._path.read_text()) if self._path.exists() else {}

    def get_password(self, service, username):
        return self._entries().get(f"{service} {username}")

    def set_password(self, service, username, password):
        self._path.write_text(json.dumps(self._entries() | {f"{service} {username}": password}))

    def delete_password(self, service, username):
        entries = self._entries()
        if entries.pop(f"{service} {username}", None) is None:
            raise PasswordDeleteError("there is none")
        self._path.write_text(json.dumps(entries))
