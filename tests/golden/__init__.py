"""Card and report of a real study of the starter reviews, with the records and raw answers they are drawn from.

Made anew, after `python -m src.sweep -m && python -m src.compare`, by: python -m tests.golden <the study's folder>
"""
