"""Classifies texts, lines of the standard input, or the rows of a file."""
