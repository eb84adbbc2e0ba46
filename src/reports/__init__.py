"""Error analysis, figures, the study's report and the model card. Made from records only."""
