"""A book as two dictionaries: the slow, obvious one."""

from daemon.core.ticks import BUY, DepthFlag


class Book:
    def __init__(self):
        self.sides = {True: {}, False: {}}
        self.is_whole = False
        self.in_snapshot = False
        self.last_id = None
        self.after_gap = False
        self.unknown = self.crossed = self.early = self.negative = self.gaps = 0

    def row(self, identity, side, price, size, flags):
        is_snapshot = bool(flags & DepthFlag.SNAPSHOT)
        is_first = not self.after_gap or identity != self.last_id
        self.after_gap = bool(flags & DepthFlag.AFTER_GAP)
        if self.after_gap and is_first:
            self.is_whole = False
            self.gaps += 1
        if is_snapshot and (not self.in_snapshot or identity != self.last_id):
            self.sides = {True: {}, False: {}}
            self.is_whole = True
        self.in_snapshot, self.last_id = is_snapshot, identity
        if not self.is_whole:
            self.early += 1
            return
        if size < 0:
            self.negative += 1
            return
        levels = self.sides[side == BUY]
        if size:
            levels[price] = size
        elif levels.pop(price, None) is None:
            self.unknown += 1

    def end_of_event(self):
        bid, ask = self.best
        if self.is_whole and bid is not None and ask is not None and bid >= ask:
            self.crossed += 1

    @property
    def best(self):
        return max(self.sides[True], default=None), min(self.sides[False], default=None)

    def top(self, side, count):
        return sorted(self.sides[side == BUY].items(), reverse=side == BUY)[:count]
