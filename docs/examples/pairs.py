"""A pairs trade: what two symbols' prices have drifted apart is expected to come back."""

import math

import numpy as np

from daemon.research import BUY, SELL, Bar, Context, Parameter, Strategy

FIRST, SECOND = 0, 1  # places in the configuration's symbols


class Pairs(Strategy):
    """Sells the dearer and buys the cheaper of two symbols, equal worth of each, until they meet again.

    The spread is log(first) - log(second), judged by its mean and standard deviation over `window` bars.
    """

    window = Parameter(120.0, low=20.0, high=500.0, step=10.0)  # bars
    enter = Parameter(2.0, low=0.5, high=5.0, step=0.25)  # standard deviations
    leave = Parameter(0.5, low=0.0, high=2.0, step=0.25)
    share = Parameter(0.4, low=0.05, high=0.5, step=0.05)  # of the equity, in each symbol

    spreads = np.zeros(500)
    seen: int = 0

    def on_bar(self, context: Context, bar: Bar) -> None:
        """Look at both closes once the second symbol's bar has ended."""
        if context.symbol() != SECOND or not context.price(FIRST) > 0.0:
            return
        spread = math.log(context.price(FIRST)) - math.log(bar.close)
        bars = int(self.window)
        self.spreads[self.seen % bars] = spread
        self.seen += 1
        if self.seen < bars:
            return
        held = context.position(SECOND)
        score = self.score(spread, bars)
        if held == 0.0 and abs(score) > self.enter:
            side = SELL if score > 0.0 else BUY
            worth = self.share * context.equity()
            context.submit(side, worth / context.price(FIRST), symbol=FIRST)
            context.submit(-side, worth / bar.close, symbol=SECOND)
        elif held != 0.0 and score * held < self.leave * abs(held):
            for symbol in (FIRST, SECOND):
                size = context.position(symbol)
                if size != 0.0:
                    context.submit(SELL if size > 0.0 else BUY, abs(size), symbol=symbol, reduce_only=True)

    def score(self, spread: float, bars: int) -> float:
        """Return by how many standard deviations a spread is off its mean."""
        past = self.spreads[:bars]
        deviation = past.std()
        return (spread - past.mean()) / deviation if deviation > 0.0 else 0.0
