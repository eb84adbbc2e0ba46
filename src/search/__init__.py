"""Studies: space, sampler, storage, and the lifecycle of trials. The only package that imports Optuna."""

import optuna

optuna.logging.set_verbosity(optuna.logging.WARNING)
