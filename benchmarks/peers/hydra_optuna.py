"""hydra-optuna-sweeper around a plain training script: Hydra composes, the sweeper asks Optuna, the script answers.

Its command line is Hydra's; what the other scripts take as arguments comes through the environment.
"""

import argparse
import json
import os
from pathlib import Path

import common
import hydra
from omegaconf import DictConfig, OmegaConf


@hydra.main(version_base="1.3", config_path="hydra_optuna", config_name="config")
def main(config: DictConfig) -> float:
    from transformers import DataCollatorWithPadding, Trainer, set_seed

    given = json.loads(os.environ["PEER"])
    paths = {k: Path(given[k]) for k in ("data", "model", "place", "out")}
    arguments = argparse.Namespace(**{**given, **paths})
    set_seed(arguments.seed)
    tokenizer, cut = common.tokenised(arguments)
    trainer = Trainer(
        common.model(arguments, config.dropout),
        common.training_arguments(
            arguments,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            num_train_epochs=config.num_train_epochs,
        ),
        train_dataset=cut["train"],
        eval_dataset=cut["validation"],
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=common.accuracy,
    )
    trainer.train()
    value = trainer.evaluate()[common.METRIC]
    common.note(arguments, value, common.plain(OmegaConf.to_container(config)))
    return value


if __name__ == "__main__":
    main()
