"""A comparison: plan, run, monitor, form_choice, evaluate, contender_records, record."""
