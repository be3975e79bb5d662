"""The file that `atlasd strategy new` writes: short, commented, and running as it stands."""

from __future__ import annotations

import re
from typing import Final

_TEMPLATE: Final = '''"""NAME: say here what the idea is, and why it should earn anything."""

from daemon.research import BUY, SELL, Bar, Column, Context, Fill, Parameter, Strategy


class CLASS(Strategy):
    """Buys what fell too fast, and sells it once it has recovered."""

    # What a configuration may set and `atlasd optimize` varies: default, range and step, written out as numbers.
    low = Parameter(30.0, low=10.0, high=45.0, step=5.0)
    high = Parameter(55.0, low=50.0, high=90.0, step=5.0)
    share = Parameter(0.5, low=0.1, high=1.0, step=0.1)

    # Columns by name, as rules have them; handlers read them by `context.value`.
    rsi = Column("rsi_14")

    # State: numbers and arrays of numbers, which handlers may set.
    bought = 0.0

    def on_bar(self, context: Context, bar: Bar) -> None:
        """Called at the close of every bar of every symbol. An order that is sent here fills after it."""
        strength = context.value(self.rsi)  # NaN until there are enough bars: a comparison with NaN is false
        held = context.position()
        if held == 0.0 and context.order_count() == 0 and strength < self.low:
            context.submit(BUY, self.share * context.equity() / context.symbol_count() / bar.close)
        elif held > 0.0 and context.order_count() == 0 and strength > self.high:
            context.submit(SELL, held, reduce_only=True)

    def on_fill(self, context: Context, fill: Fill) -> None:
        """Called for each fill of this strategy's own orders."""
        if fill.side > 0:
            self.bought += fill.quantity
'''


def template(strategy_id: str) -> bytes:
    """Return the source of a new strategy."""
    words = re.findall(r"[A-Za-z0-9]+", strategy_id)
    name = "".join(word[:1].upper() + word[1:] for word in words)
    made = name if name[:1].isalpha() else f"Strategy{name}"
    made = f"{made}Strategy" if made in ("Strategy", "Bar", "Column", "Context", "Fill", "Parameter") else made
    made = f"{made}_" if made in ("True", "False", "None") else made
    return _TEMPLATE.replace("NAME", strategy_id, 1).replace("CLASS", made, 1).encode()
