"""Coinbase Exchange on this machine: one product whose every trade is known; its requests and its stream."""

import json
from datetime import UTC, datetime

from aiohttp import web

from daemon.core.market import NS_PER_SECOND

PRODUCT = "BTC-USD"


def written(trade_id, time_ns):
    """A trade as the venue writes it."""
    second = datetime.fromtimestamp(time_ns // NS_PER_SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return {
        "time": f"{second}.{time_ns % NS_PER_SECOND // 1000:06d}Z",
        "trade_id": trade_id,
        "price": f"{6225 + trade_id % 7}.32000000",
        "size": "0.06469797",
        "side": "sell" if trade_id % 2 else "buy",
    }


class Coinbase:
    """trades: (id, time ns), ascending. refused: a status that every request is answered with."""

    def __init__(self, trades=()):
        self.trades = list(trades)
        self.asked = []
        self.refused = None

    async def handle(self, request):
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self.stream(request)
        self.asked.append(request.path_qs)
        if self.refused:
            return web.Response(status=self.refused)
        if not request.path.startswith(f"/products/{PRODUCT}"):
            return web.json_response({"message": "NotFound"}, status=404)
        cursor = int(request.query.get("after", 1 << 62))
        older = [trade for trade in reversed(self.trades) if trade[0] < cursor]
        return web.json_response([written(*trade) for trade in older[: int(request.query["limit"])]])

    async def stream(self, request):
        """Say all trades once, then wait."""
        talk = web.WebSocketResponse(timeout=0.05)
        await talk.prepare(request)
        async for message in talk:
            if json.loads(message.data)["type"] == "subscribe":
                for trade in self.trades:
                    text = written(*trade) | {"type": "match", "product_id": PRODUCT, "sequence": trade[0]}
                    await talk.send_str(json.dumps(text))
        return talk


def config_text(url, **more):
    """A config.toml that leads `atlasd` here."""
    hosts = {"rest": url, "ws": url.replace("http", "ws"), "advanced_ws": url.replace("http", "ws")}
    settings = {"attempts": 1, "rest_per_s": 10_000.0, "rest_burst": 10_000.0} | more
    lines = [f'{name} = "{host}"' for name, host in hosts.items()]
    return "\n".join(["[coinbase]", *lines, *(f"{name} = {value}" for name, value in settings.items()), ""])
