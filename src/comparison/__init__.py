"""What a comparison compares, on which fresh seeds, and which contender wins on validation."""
