"""A run from config to report."""
