"""Helpers and servers that tests of several packages use."""
