"""transformers' Trainer.hyperparameter_search with its Optuna backend, as its documentation has it."""

import common
from transformers import DataCollatorWithPadding, Trainer


def search(**study) -> None:
    """`study`: what optuna.create_study is given beside the direction."""
    asked = common.arguments()
    tokenizer, cut = common.tokenised(asked)

    def space(trial):
        return {
            "learning_rate": trial.suggest_float("learning_rate", common.LOW, common.HIGH, log=True),
            "weight_decay": trial.suggest_float("weight_decay", 0.0, common.WEIGHT_DECAY),
            "num_train_epochs": trial.suggest_int("num_train_epochs", 1, common.EPOCHS),
        }

    def model_init(trial):
        return common.model(asked, trial.suggest_float("dropout", 0.0, common.DROPOUT) if trial is not None else 0.1)

    def objective(metrics):
        return metrics[common.METRIC]

    trainer = Trainer(
        None,
        common.training_arguments(asked),
        train_dataset=cut["train"],
        eval_dataset=cut["validation"],
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=common.accuracy,
        model_init=model_init,
    )

    common.listen(asked)
    trainer.hyperparameter_search(
        space, objective, n_trials=asked.trials, direction="maximize", backend="optuna", **study
    )


if __name__ == "__main__":
    import optuna

    search(sampler=optuna.samplers.TPESampler(seed=common.arguments().seed))
