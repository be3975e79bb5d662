"""A book of orders as the dullest of dictionaries: price to size, one row after another."""

from daemon.core.ticks import BUY, DepthFlag


class Book:
    """Bids and asks by price, both as exact integers; `known` from a snapshot until a gap."""

    def __init__(self):
        self.bids = {}
        self.asks = {}
        self.known = False
        self.id = -1

    def apply(self, update_id, side, price, size, flags):
        """Take one row. Rows of one id that carry SNAPSHOT are one book, which replaces all before."""
        if flags & DepthFlag.AFTER_GAP and self.id != update_id:
            self.known = False
        if flags & DepthFlag.SNAPSHOT and (not self.known or self.id != update_id):
            self.bids, self.asks = {}, {}
            self.known = True
        levels = self.bids if side == BUY else self.asks
        if size:
            levels[price] = size
        else:
            levels.pop(price, None)
        self.id = update_id

    @property
    def best_bid(self):
        """(price, size)."""
        return max(self.bids.items())

    @property
    def best_ask(self):
        """(price, size)."""
        return min(self.asks.items())

    @property
    def is_crossed(self):
        """Whether somebody would pay more than somebody asks."""
        return self.best_bid[0] >= self.best_ask[0]


def replay(rows):
    """Yield the book after each update that completes a known one: the same object, changed."""
    book = Book()
    names = ("id", "side", "price", "size", "flags")
    columns = [rows.column(name).tolist() for name in names]
    count = len(columns[0])
    for place, row in enumerate(zip(*columns, strict=True)):
        book.apply(*row)
        if book.known and (place + 1 == count or columns[0][place + 1] != row[0]):
            yield book
