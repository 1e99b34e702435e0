"""Overlays, curves and pages."""
