"""A market maker that minds its inventory: it quotes around the micro-price and leans against what it holds."""

import math

from daemon.research import BUY, SELL, Context, Parameter, Strategy


class MarketMaker(Strategy):
    """Keeps one bid and one ask in the book, looks at them ten times a second, and holds no more than `most`."""

    every_ms = 100

    half_spread = Parameter(30.0, low=1.0, high=200.0, step=1.0)  # ticks from the fair price to a quote
    skew = Parameter(2.0, low=0.0, high=20.0, step=0.5)  # ticks by which both quotes move for each `size` held
    size = Parameter(0.01, low=0.001, high=1.0, step=0.001)  # base units of a quote
    most = Parameter(0.05, low=0.001, high=5.0, step=0.001)  # base units held, long or short

    bid: int = 0  # ids of the two orders, 0 for none
    ask: int = 0
    bid_price: float = 0.0
    ask_price: float = 0.0

    def on_timer(self, context: Context) -> None:
        """Move the quotes to where they should be."""
        best_bid, best_ask = context.bid(), context.ask()
        if not best_bid < best_ask:
            return
        tick = context.tick()
        bid_size, ask_size = context.depth(BUY, best_bid), context.depth(SELL, best_ask)
        # Where one side shows less, the price goes next.
        fair = (best_bid * ask_size + best_ask * bid_size) / (bid_size + ask_size)
        fair -= self.skew * context.position() / self.size * tick
        bid_price = min(math.floor(fair / tick - self.half_spread) * tick, best_bid)
        ask_price = max(math.ceil(fair / tick + self.half_spread) * tick, best_ask)
        self.bid = self.quoted(context, BUY, self.bid, bid_price, bid_price != self.bid_price)
        self.ask = self.quoted(context, SELL, self.ask, ask_price, ask_price != self.ask_price)
        self.bid_price, self.ask_price = bid_price, ask_price

    def quoted(self, context: Context, side: int, order: int, price: float, moves: bool) -> int:
        """Keep one order of a side at a price, as far as the inventory allows; returns its id, 0 for none."""
        is_open = context.remaining(order) > 0.0
        if context.position() * side + self.size > self.most:
            if is_open:
                context.cancel(order)
            return 0
        if not is_open:
            return context.submit(side, self.size, price, post_only=True)
        if moves:
            context.replace(order, self.size, price)
        return order
