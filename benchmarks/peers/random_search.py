"""Random search: the same Trainer and the same loop, points drawn at random, none pruned."""

import common
import optuna
from hyperparameter_search import search

if __name__ == "__main__":
    sampler = optuna.samplers.RandomSampler(seed=common.arguments().seed)
    search(sampler=sampler, pruner=optuna.pruners.NopPruner())
