"""A comparison: plan, run, monitor, evaluate."""
