"""The confusion matrix and scores derived from it, co-occurrence, and tables."""
