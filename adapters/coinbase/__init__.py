"""Coinbase: the Exchange and the Advanced Trade interfaces, keyless."""
