"""Binance: archives, REST and streams, of spot and futures."""
