"""What may be set about Binance: hosts, limits, an optional key. Nothing of it is a secret but the key.

Hosts change and are blocked in places; every one of them can be overridden. Weights are the venue's own, per minute
and address; what `exchangeInfo` says of the limit replaces the figure here once it has been read.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from daemon.core.secret import Secret


class Market(StrEnum):
    """Binance's markets: spot, USD-margined and coin-margined futures. The values name its archive's branches too."""

    SPOT = "spot"
    UM = "um"
    CM = "cm"


class BinanceConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Hosts without a path, limits in the venue's weight per minute.

    spot_weight_per_min and the others: the budget until the venue has told its own.
    budget_share: the part of the budget that is used before requests wait for the next minute, in (0, 1].
    api_key: sent as X-MBX-APIKEY where the venue wants one (old trades of futures); reading needs no secret.
    """

    rest_spot: str = "https://data-api.binance.vision"
    rest_um: str = "https://fapi.binance.com"
    rest_cm: str = "https://dapi.binance.com"
    archive: str = "https://data.binance.vision"
    ws_spot: str = "wss://data-stream.binance.vision"
    ws_um: str = "wss://fstream.binance.com"
    ws_cm: str = "wss://dstream.binance.com"
    spot_weight_per_min: int = 6_000
    um_weight_per_min: int = 2_400
    cm_weight_per_min: int = 2_400
    budget_share: float = 0.8
    timeout_s: float = 10.0
    attempts: int = 6
    patience_s: float = 300.0
    archive_parallel: int = 4
    archive_per_s: float = 20.0
    api_key: Secret = ""

    def rest(self, market: Market) -> str:
        """Return the host of a market's requests."""
        return {Market.SPOT: self.rest_spot, Market.UM: self.rest_um, Market.CM: self.rest_cm}[market]

    def weight_per_min(self, market: Market) -> int:
        """Return the budget of a market's requests."""
        budgets = {
            Market.SPOT: self.spot_weight_per_min,
            Market.UM: self.um_weight_per_min,
            Market.CM: self.cm_weight_per_min,
        }
        return budgets[market]

    def __repr__(self) -> str:
        """Show all but the key: configurations end up in logs."""
        return f"BinanceConfig(rest_spot={self.rest_spot!r}, rest_um={self.rest_um!r}, rest_cm={self.rest_cm!r}, …)"
