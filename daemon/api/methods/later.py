"""Methods of rooms that are not built yet: their structs stand for whoever writes a client; nothing answers them."""

from __future__ import annotations
