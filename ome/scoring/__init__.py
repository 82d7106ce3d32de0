"""The confusion matrix and all that derives from it, co-occurrence, tables and figures."""
