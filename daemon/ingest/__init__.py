"""Feeds into the store."""
