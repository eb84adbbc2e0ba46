"""Kills things, and looks whether anything was lost. `python -m tests.chaos.kill --help` for the long form."""
