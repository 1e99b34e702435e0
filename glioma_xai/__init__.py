"""Explanation-guided training of glioma classifiers on MRI."""
