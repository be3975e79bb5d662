"""The strategies that `atlasd bench book` runs, as their authors would write them: text that is loaded and compiled."""

from __future__ import annotations

from typing import Final

QUOTES: Final = b'''"""Quotes both sides of a book, leaning against what it holds."""

from daemon.research import BUY, SELL, Context, Parameter, Strategy


class Quotes(Strategy):
    """Cancels and sends both orders anew, ten times a second."""

    half = Parameter(2.0, low=1.0, high=10.0, step=1.0)
    size = Parameter(0.01, low=0.001, high=1.0, step=0.001)
    every_ms = 100
    bought = 0
    sold = 0

    def on_timer(self, context: Context) -> None:
        bid, ask, tick = context.bid(), context.ask(), context.tick()
        if not bid < ask:
            return
        middle, lean = (bid + ask) / 2.0, context.position() / self.size
        if self.bought > 0:
            context.cancel(self.bought)
        if self.sold > 0:
            context.cancel(self.sold)
        self.bought = context.submit(BUY, self.size, min(bid, middle - (self.half + lean) * tick), post_only=True)
        self.sold = context.submit(SELL, self.size, max(ask, middle + (self.half - lean) * tick), post_only=True)
'''

EVERY_TRADE: Final = b'''"""Looks at every trade."""

from daemon.research import BUY, SELL, Context, Parameter, Strategy, Trade


class EveryTrade(Strategy):
    """Follows a slow mean, and turns around it now and then."""

    share = Parameter(0.001, low=0.0001, high=0.1, step=0.0001)
    mean = 0.0
    seen = 0

    def on_trade(self, context: Context, trade: Trade) -> None:
        self.mean = self.mean + self.share * (trade.price - self.mean) if self.seen > 0 else trade.price
        self.seen += 1
        if self.seen % 10_000 == 0:
            held = context.position()
            if trade.price > self.mean and held <= 0.0:
                context.submit(BUY, 0.01)
            elif trade.price < self.mean and held >= 0.0:
                context.submit(SELL, 0.01)
'''

IN_PYTHON: Final = b'''"""Looks at every bar, with what no compiler takes."""

from daemon.research import BUY, SELL, Bar, Context, Strategy

closes = {}


class InPython(Strategy):
    """Keeps its closes in a dictionary of lists, by names that are made on the way."""

    bars = 0

    def on_bar(self, context: Context, bar: Bar) -> None:
        kept = closes.setdefault(f"symbol {context.symbol()}", [])
        kept.append(bar.close)
        if len(kept) < 600:
            return
        rises = kept[-1] > kept[0]
        kept.clear()
        held = context.position()
        if rises and held <= 0.0:
            context.submit(BUY, 0.01)
        elif not rises and held >= 0.0:
            context.submit(SELL, 0.01)
'''
