"""Guidance losses on relevance, their schedules, and probes."""
