"""Ctrl-C while a probe run is watched."""

from daemon.app.cli.probe import follow
from daemon.core.errors import Code, Conflict
from daemon.research.plans import ProbeRequest


class Ended:
    """A writer whose run ends between the key and the cancellation."""

    def __init__(self):
        self.asked = 0

    def start(self, _request):
        return "run"

    def status(self, _run_id):
        self.asked += 1
        if self.asked == 1:
            raise KeyboardInterrupt
        return "completed"

    def cancel(self, run_id):
        raise Conflict(Code.RUN_FINISHED, f"run {run_id} is completed: there is nothing to cancel")


def test_ctrl_c_at_the_very_end_keeps_the_result():
    assert follow(Ended(), ProbeRequest(symbols=["A"], timeframes=["1Hour"])) == "completed"
