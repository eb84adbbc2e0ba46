"""From a data set's name to tokenised splits: sources, splits, overlap, tokens. Knows no model and no metric."""
