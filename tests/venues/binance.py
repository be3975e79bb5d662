"""Binance on this machine: one spot market whose every row is known; its streams, its requests, its archive."""

import asyncio
import contextlib
import hashlib
import io
import json
import time
import zipfile
from datetime import UTC, date, datetime, timedelta
from random import Random

import aiohttp
from aiohttp import web

from daemon.core.market import NS_PER_DAY
from daemon.core.ticks import BUY, SELL

SYMBOL = "BTCUSDT"
DAY_US = NS_PER_DAY // 1_000


def midnight_us(day):
    return (date.fromisoformat(str(day)) - date(1970, 1, 1)).days * DAY_US


class Market:
    """What happened: trades, their aggregates, changes of a book. Prices and sizes: whole numbers of 10^-2, 10^-3."""

    def __init__(self, seed=1, start_us=1_723_161_600_000_000, *, symbol=SYMBOL):
        self.symbol = symbol
        self.random = Random(seed)  # noqa: S311 - a market, no secret
        self.now_us = start_us
        self.trades = []
        self.aggregates = []
        self.book = {}  # (side, price) to size
        self.update_id = 1_000
        self.listeners = set()
        for price in range(6_000_000, 6_000_020):
            self.book[(BUY if price < 6_000_010 else SELL), price] = 1_000

    def tell(self, kind, fields):
        """Send a message of a stream to whoever listens to it."""
        name = f"{self.symbol.lower()}@{kind}"
        text = json.dumps({"stream": name, "data": fields | {"s": self.symbol, "E": self.now_us}})
        for listener in list(self.listeners):
            listener(name, text)

    def step(self, step_us=1_000):
        """Let something happen: some trades of one order, and what they change in the book."""
        self.now_us += step_us
        price, is_maker = 6_000_000 + self.random.randrange(20), self.random.random() < 0.5
        first = len(self.trades) + 1
        for number in range(first, first + self.random.randint(1, 3)):
            size = self.random.randint(1, 5_000)
            trade = {"t": number, "p": _2(price), "q": _3(size), "T": self.now_us, "m": is_maker}
            self.trades.append(trade)
            self.tell("trade", trade | {"e": "trade", "M": True})
        last = len(self.trades)
        quantity = sum(round(float(each["q"]) * 1_000) for each in self.trades[first - 1 :])
        joined = {"a": len(self.aggregates) + 1, "p": _2(price), "q": _3(quantity), "f": first, "l": last}
        joined |= {"T": self.now_us, "m": is_maker}
        self.aggregates.append(joined)
        self.tell("aggTrade", joined | {"e": "aggTrade", "M": True})
        self.change()

    def change(self):
        """Change some levels of the book."""
        first = self.update_id + 1
        sides = {BUY: [], SELL: []}
        for _ in range(self.random.randint(1, 3)):
            self.update_id += 1
            price = 6_000_000 + self.random.randrange(20)
            side = BUY if price < 6_000_010 else SELL
            size = self.random.choice([0, 500, 1_500])
            self.book.pop((side, price), None)
            if size:
                self.book[side, price] = size
            sides[side] = [each for each in sides[side] if each[0] != _2(price)] + [[_2(price), _3(size)]]
        last = {"U": first, "u": self.update_id, "b": sides[BUY], "a": sides[SELL]}
        self.tell("depth@100ms", last | {"e": "depthUpdate"})
        self.tell("bookTicker", {"u": self.update_id, "b": "59999.00", "B": "1.5", "a": "60001.00", "A": "2.5"})

    def whole_book(self):
        levels = {
            side: [[_2(price), _3(size)] for (of, price), size in self.book.items() if of == side]
            for side in (BUY, SELL)
        }
        return {"lastUpdateId": self.update_id, "bids": levels[BUY], "asks": levels[SELL]}


def _2(price):
    return f"{price / 100:.2f}"


def _3(size):
    return f"{size / 1_000:.3f}"


class Calm:
    """Nothing goes wrong."""

    async def send(self, talk, text):
        await talk.send_str(text)

    def refusal(self, _path):
        return None

    def refuses_connections(self):
        return False


class Binance:
    """Answers requests, serves streams and archive. chaos: what goes wrong."""

    def __init__(self, market, chaos=None, *, page=1_000):
        self.market = market
        self.chaos = chaos or Calm()
        self.page = page
        self.klines = []
        self.files = {}
        self.checksums = {}  # of files whose published checksum is another
        self.asked = []
        self.before = []  # functions of a request; the first that answers something goes before all else
        self.talks = 0

    # Requests.

    async def handle(self, request):
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self.stream(request)
        self.asked.append(request.path_qs)
        for answer in self.before:
            if (found := await answer(request)) is not None:
                return found
        return self.file(request) if request.path.startswith("/data/") else self.answer(request)

    def answer(self, request):
        if (refusal := self.chaos.refusal(request.path)) is not None:
            return refusal
        if request.query.get("symbol", self.market.symbol) != self.market.symbol:
            return web.json_response({"code": -1121, "msg": "Invalid symbol."}, status=400)
        kind = request.path.rpartition("/")[2]
        return web.json_response(getattr(self, f"on_{kind}")(request.query))

    def on_time(self, _query):
        return {"serverTime": time.time_ns() // 1_000_000}

    def on_aggTrades(self, query):  # noqa: N802 - the venue's word
        rows = self.market.aggregates
        if "fromId" in query:
            rows = rows[max(0, int(query["fromId"]) - 1) :]
        else:
            rows = [row for row in rows if row["T"] >= int(query["startTime"]) * 1_000]
        return rows[: min(self.page, int(query["limit"]))]

    def on_historicalTrades(self, query):  # noqa: N802
        start = max(0, int(query["fromId"]) - 1)
        return [
            {"id": t["t"], "price": t["p"], "qty": t["q"], "quoteQty": "1", "time": t["T"], "isBuyerMaker": t["m"]}
            for t in self.market.trades[start : start + min(self.page, int(query["limit"]))]
        ]

    def on_depth(self, _query):
        return self.market.whole_book()

    def on_klines(self, query):
        start, end = int(query["startTime"]), int(query["endTime"])
        return [row for row in self.klines if start * 1_000 <= row[0] <= end * 1_000][: int(query["limit"])]

    def on_exchangeInfo(self, _query):  # noqa: N802
        return {"symbols": [{"symbol": self.market.symbol, "status": "TRADING", "filters": []}]}

    # Streams.

    async def stream(self, request):
        if self.chaos.refuses_connections():
            return web.Response(status=503)
        talk = web.WebSocketResponse(timeout=0.05)
        await talk.prepare(request)
        self.talks += 1
        wanted = set(request.query["streams"].split("/"))
        texts = asyncio.Queue()

        def listen(name, text):
            if name in wanted:
                texts.put_nowait(text)

        async def speak():
            with contextlib.suppress(ConnectionError, aiohttp.ClientError):
                while True:
                    await self.chaos.send(talk, await texts.get())

        self.market.listeners.add(listen)
        speaking = asyncio.create_task(speak())
        try:
            async for _ in talk:  # until the client leaves, or is thrown out
                pass
        finally:
            self.market.listeners.discard(listen)
            speaking.cancel()
            await asyncio.gather(speaking, return_exceptions=True)
        return talk

    # The archive.

    def file(self, request):
        path = request.path.removesuffix(".CHECKSUM")
        if path not in self.files:
            return web.Response(status=404)
        body = self.files[path]
        if path != request.path:
            sha256 = self.checksums.get(path, hashlib.sha256(body).hexdigest())
            return web.Response(text=f"{sha256}  {path.rpartition('/')[2]}\n")
        wanted = request.headers.get("Range")
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        headers = {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"} if start else {}
        return web.Response(body=body[start:], status=206 if start else 200, headers=headers)

    def publish(self, first, last=None):
        """Put the trades and aggregates of days, both included, into the archive; returns the paths of trades."""
        paths = []
        day, end = date.fromisoformat(first), date.fromisoformat(last or first)
        while day <= end:
            start_us = midnight_us(day)
            inside = [row for row in self.market.trades if start_us <= row["T"] < start_us + DAY_US]
            text = "".join(f"{t['t']},{t['p']},{t['q']},1.0,{t['T']},{t['m']},True\n" for t in inside)
            paths.append(self.put(f"daily/trades/{self.market.symbol}", f"{self.market.symbol}-trades-{day}", text))
            inside = [row for row in self.market.aggregates if start_us <= row["T"] < start_us + DAY_US]
            text = "".join(f"{a['a']},{a['p']},{a['q']},{a['f']},{a['l']},{a['T']},{a['m']},True\n" for a in inside)
            self.put(f"daily/aggTrades/{self.market.symbol}", f"{self.market.symbol}-aggTrades-{day}", text)
            day += timedelta(days=1)
        return paths

    def put(self, folder, name, text, branch="spot"):
        """Put a CSV into the archive; returns its path."""
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(zipfile.ZipInfo(f"{name}.csv"), text)
        path = f"/data/{branch}/{folder}/{name}.zip"
        self.files[path] = packed.getvalue()
        return path

    def requests(self, word):
        """The paths that were asked for with a word in them."""
        return [each for each in self.asked if word in each]


def kline(start, minute, *, micro=True):
    """A one-minute kline, so many minutes after the start of a day."""
    opened = midnight_us(start) + minute * 60_000_000
    unit = 1 if micro else 1_000
    price = 100 + minute % 7
    numbers = [f"{price}.0", f"{price + 2}.0", f"{price - 1}.0", f"{price + 1}.0", f"{1 + minute % 3}.5"]
    return [opened // unit, *numbers, (opened + 60_000_000) // unit - 1, "77.25", 9, "1", "1", "0"]


def days_ago(number):
    """A day before today, UTC."""
    return str(datetime.now(UTC).date() - timedelta(days=number))


def config_text(url, **more):
    """A config.toml that leads `atlasd` here, and does not let it wait for long."""
    hosts = "".join(f'{name} = "{url}"\n' for name in ("rest_spot", "rest_um", "rest_cm", "archive"))
    hosts += "".join(f'{name} = "{url.replace("http", "ws")}"\n' for name in ("ws_spot", "ws_um", "ws_cm"))
    settings = {"attempts": 1, "archive_per_s": 10_000.0, "timeout_s": 5.0, "patience_s": 0.5} | more
    return "[binance]\n" + hosts + "".join(f"{name} = {value}\n" for name, value in settings.items())


def lived(*days, seed=1, steps=40, symbol=SYMBOL):
    """A market that was alive on some days only, from their midnight on, a step each ten minutes."""
    market = Market(seed, symbol=symbol)
    for day in days:
        market.now_us = midnight_us(day)
        for _ in range(steps):
            market.step(600_000_000)
    return market
