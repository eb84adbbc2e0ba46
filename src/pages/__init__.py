"""What is shown to people: error analysis, figures, the study's report, the model card. Drawn from records only."""
