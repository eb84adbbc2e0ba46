"""Turns Hydra's composed config into frozen settings. Other packages do not see a DictConfig."""
