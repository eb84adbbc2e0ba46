"""transformers' Trainer.hyperparameter_search with its own space, then the best settings trained as its guide does.

The guide ends at the best run's settings; they are trained once more on train. Its own lines for that set them on the
Trainer that has searched, which keeps the batch size of its last trial (transformers 5.23), so they are given to a new
Trainer here. What the search found is kept in best.json: a script that broke off goes on from there.
"""

import json
import time

import numpy as np
import quality_common as common
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

TRIALS = 20  # the default of hyperparameter_search


def main() -> None:
    from datasets import Dataset

    asked = common.arguments()
    began, frames = time.time(), common.splits(asked)
    tokenizer = AutoTokenizer.from_pretrained(asked.model)
    n_labels = int(frames["train"]["label"].max()) + 1

    def tokenize(rows):
        return tokenizer(rows["text"], truncation=True, max_length=asked.tokens)

    data = {
        name: Dataset.from_pandas(f, preserve_index=False).map(tokenize, batched=True) for name, f in frames.items()
    }

    def model_init(_trial=None):
        return AutoModelForSequenceClassification.from_pretrained(asked.model, num_labels=n_labels)

    def accuracy(answers):
        return {"accuracy": float((np.argmax(answers.predictions, 1) == answers.label_ids).mean())}

    def trainer_with(**settings):
        given = {"eval_strategy": "epoch", "save_strategy": "no", "report_to": "none", "disable_tqdm": True, "seed": 42}
        return Trainer(
            None,
            TrainingArguments(str(asked.place), **(given | settings)),
            train_dataset=data["train"],
            eval_dataset=data["validation"],
            data_collator=DataCollatorWithPadding(tokenizer),
            compute_metrics=accuracy,
            model_init=model_init,
        )

    kept = asked.place / "best.json"
    before = json.loads(kept.read_text())["seconds"] if kept.exists() else 0.0
    if not kept.exists():
        trainer, best, searched = trainer_with(), None, 0
        while searched == 0 or time.time() - began < asked.seconds:  # its default, and more while there is time
            left = asked.seconds - (time.time() - began)
            found = trainer.hyperparameter_search(
                compute_objective=lambda metrics: metrics["eval_accuracy"],
                direction="maximize",
                backend="optuna",
                n_trials=TRIALS,
                timeout=None if searched == 0 else max(1.0, left),
            )
            best = found if best is None or found.objective > best.objective else best
            searched += 1
        kept.write_text(json.dumps({"settings": best.hyperparameters, "seconds": time.time() - began}))
    trainer = trainer_with(**json.loads(kept.read_text())["settings"])
    trainer.train()
    trainer.save_model(str(asked.place / "model"))

    def predict(texts):
        import torch

        logits = trainer.predict(data["test"]).predictions
        assert len(logits) == len(texts)
        return torch.softmax(torch.from_numpy(logits), dim=1).numpy()

    common.deliver(asked, predict, asked.place / "model" / "model.safetensors", before)


if __name__ == "__main__":
    main()
