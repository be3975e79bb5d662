"""The daemon's face: typed messages over HTTP."""
