"""Formulas of the metrics as functions of tensors and arrays."""
