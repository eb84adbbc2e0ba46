"""Random search: the same Trainer and the same loop, points drawn at random, none pruned."""

import optuna
from hyperparameter_search import search

if __name__ == "__main__":
    optuna.pruners.MedianPruner = optuna.pruners.NopPruner  # create_study's default, which cannot be given here
    search(optuna.samplers.RandomSampler)
