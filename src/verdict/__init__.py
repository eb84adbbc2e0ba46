"""Computes verdicts from predictions: intervals, tests and tables. Depends on numpy, scipy and records only."""
