"""The study: its space, its store, its trials and who works on them. The one home of Optuna."""

import optuna

optuna.logging.set_verbosity(optuna.logging.WARNING)
