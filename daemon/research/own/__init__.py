"""Strategies of the user's own: code that nobody has checked."""
