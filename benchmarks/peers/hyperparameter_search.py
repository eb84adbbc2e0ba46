"""transformers' Trainer.hyperparameter_search with its Optuna backend, as its documentation has it."""

import common
from transformers import DataCollatorWithPadding, Trainer


def search(**study) -> None:
    """`study`: what optuna.create_study is given beside the direction."""
    arguments = common.arguments()
    tokenizer, cut = common.tokenised(arguments)

    def space(trial):
        return {
            "learning_rate": trial.suggest_float("learning_rate", *common.RANGES["learning_rate"], log=True),
            "weight_decay": trial.suggest_float("weight_decay", *common.RANGES["weight_decay"]),
            "num_train_epochs": trial.suggest_int("num_train_epochs", *common.RANGES["num_train_epochs"]),
        }

    def model_init(trial):
        dropout = trial.suggest_float("dropout", *common.RANGES["dropout"]) if trial is not None else 0.1
        return common.model(arguments, dropout)

    def objective(metrics):
        return metrics[common.METRIC]

    trainer = Trainer(
        None,
        common.training_arguments(arguments),
        train_dataset=cut["train"],
        eval_dataset=cut["validation"],
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=common.accuracy,
        model_init=model_init,
    )

    common.listen(arguments)
    trainer.hyperparameter_search(
        space, objective, n_trials=arguments.trials, direction="maximize", backend="optuna", **study
    )


if __name__ == "__main__":
    import optuna

    search(sampler=optuna.samplers.TPESampler(seed=common.arguments().seed))
