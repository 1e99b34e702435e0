"""Cohorts to tensors: readers, splits, transforms, cache, phantom and the Lightning DataModule."""
