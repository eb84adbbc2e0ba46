"""Loads data sets, makes splits, removes overlap and tokenizes. Knows neither models nor metrics."""
