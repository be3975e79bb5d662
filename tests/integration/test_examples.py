"""The worked examples under docs, run as their pages say, over real data; their results are pinned."""

from pathlib import Path

import msgspec
import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
SHARED = ROOT.parent / "shared" / "data"
CAPTURE = SHARED / "binance" / "streams" / "futures-um-btcusdt-20240808.gz"


def needed(path):
    """Skip without a file of real market data."""
    if not path.exists():
        pytest.skip(f"needs {path.name} of the shared market data")
    return path


def result_of(done):
    assert done.returncode == 0, done.stderr
    return msgspec.json.decode(done.stdout)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ATLASD_DATA_DIR", str(tmp_path / "data"))
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_the_market_maker_trades_the_recording_as_it_did(atlasd_inside, tmp_path):
    source = needed(CAPTURE)
    done = atlasd_inside("import", "depth", source, "--source", "binance-stream", "--symbol", "BTCUSDT-PERP")
    assert done.returncode == 0, done.stderr
    page = tmp_path / "mm.html"
    result = result_of(atlasd_inside("backtest", EXAMPLES / "market_maker.json", "--report", page, "--format", "json"))
    assert page.stat().st_size > 100_000
    assert pinned(result) == {"trades": 101, "fills": 364, "profit": -13.68, "fees": 0.94}
    assert any("queues (risk averse model)" in each for each in result["assumptions"])


@pytest.mark.usefixtures("folder")
def test_the_pairs_trade_does_what_it_did(atlasd_inside):
    for symbol in ("SPY", "AAPL"):
        source = needed(SHARED / "bars" / f"{symbol}_1Hour.csv.gz")
        done = atlasd_inside("import", "bars", source, "--symbol", symbol, "--timeframe", "1Hour")
        assert done.returncode == 0, done.stderr
    result = result_of(atlasd_inside("backtest", EXAMPLES / "pairs.json", "--format", "json"))
    assert pinned(result) == {"trades": 713, "fills": 1427, "profit": -26596.87, "fees": 4227.47}


def pinned(result):
    """Return what tells any change of a result, to the cent."""
    return {
        "trades": result["tradeStats"]["totalTrades"],
        "fills": result["costs"]["makerFills"] + result["costs"]["takerFills"],
        "profit": round(result["metrics"]["totalReturn"], 2),
        "fees": round(result["costs"]["fees"], 2),
    }
