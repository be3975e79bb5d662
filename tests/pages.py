"""Pages as their readers see them, and a backtest whose every text is an attack on whoever shows it."""

from html.parser import HTMLParser

import msgspec
from plotly.offline import get_plotlyjs
from samples import sample_backtest
from verdicts import hostile_validation

from daemon.research.backtest_result import Event, MonthlyReturn

EVIL = "</script><img src=x onerror=alert(1)>&$title`%{x}"


class Reader(HTMLParser):
    """Collects a page's visible words, its links and handlers, and the tags that were opened and never closed."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.words, self.open, self.links, self.tags, self.attributes = "", [], [], set(), set()
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attributes}
        self.links += [value for name, value in attributes if name in ("src", "href", "action")]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if self.open and self.open[-1] not in ("style", "script"):
            self.words += text


def own(html):
    """All of a page but Plotly."""
    return html.replace(get_plotlyjs(), "")


def replaced(sample, **fields):
    return sample._replace(result=msgspec.structs.replace(sample.result, **fields))


def evil_sample():
    """Every text that a user may have written, or that came from a file, is an attack."""
    sample = sample_backtest(symbols=(EVIL, f"local:{EVIL}"), trades=30)
    trades = [
        msgspec.structs.replace(trade, exit_reason=EVIL, exit_note=EVIL if trade.id == 3 else None)
        for trade in sample.result.trades
    ]
    texts = [EVIL, f"second {EVIL}"]
    return replaced(
        sample,
        id=EVIL,
        name=EVIL,
        fingerprint=EVIL,
        engine_version=EVIL,
        status="failed",
        config={EVIL: {EVIL: [EVIL]}, "timeframe": EVIL},
        readings=texts,
        assumptions=texts,
        notes=texts,
        trades=trades,
        events=[Event(timestamp=0, type=EVIL, symbol=EVIL, message=EVIL)],
        execution=msgspec.structs.replace(sample.result.execution, error=EVIL),
        band=msgspec.structs.replace(sample.result.band, advice=EVIL),
        costs=msgspec.structs.replace(sample.result.costs, model={EVIL: {EVIL: EVIL}}),
        monthly_returns=[MonthlyReturn(month="<b>-01", return_percent=1.0)],
        data=[msgspec.structs.replace(each, source=EVIL, digest=EVIL, volume_unit=EVIL) for each in sample.result.data],
        definitions=dict.fromkeys(sample.result.definitions, EVIL),
        **hostile_validation(EVIL),
    )
