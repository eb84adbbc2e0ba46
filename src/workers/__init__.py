"""Worker processes: how they start, what they train for a search or a comparison, and what they leave behind."""
