"""Optimisation: many points of a configuration's parameters, tried, stored as they come, and judged together."""
