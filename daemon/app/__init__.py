"""Builds everything by hand, once: configuration, wiring, the command line."""
