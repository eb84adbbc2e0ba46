"""From predictions to a verdict: intervals, tests and tables. Knows arrays and records only."""
