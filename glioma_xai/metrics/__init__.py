"""Metric shells over the functions in metrics.functional."""
