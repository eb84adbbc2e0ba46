"""A search: plan, run, monitor, finish, report."""
