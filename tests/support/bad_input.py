"""Every error of bad input, word for word.

`python -m tests.support.bad_input` writes golden/bad_input.md; read the difference before you commit it.
"""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException

from src.cli import help_pages, override_errors
from src.config import reader
from src.config.groups import CONF_DIR, ROOT
from src.core.errors import InvalidInput
from src.core.paths import Paths
from tests.support.data import settings_of, write_rows
from tests.support.own_code import nothing_loaded, write_module

PAGE = ROOT / "tests" / "golden" / "bad_input.md"
HEAD = """# Errors of bad input

Made from `tests/support/bad_input.py` by `python -m tests.support.bad_input`; a test compares every word. All of these are
found before anything is trained: the command ends with exit code 2, and leaves no study, run, trial or checkpoint behind.
"""
TINY = ("model=tiny", "data.max_examples=100")
OWN = ("model=tiny", "data=files", "data.path=reviews.csv", "data.label_names=[no,yes]")
GOOD = [(f"review number {i} of a {'dull' if i % 2 else 'warm'} film", ("yes", "no")[i % 2]) for i in range(120)]
Make = Callable[[Path], object]


@dataclass(frozen=True)
class Case:
    """One mistake. `make` writes files into the folder that the command is given in."""

    what: str
    overrides: Sequence[str] = ()
    make: Make | None = None
    files: str = ""  # what `make` writes, in words
    verb: str = "sweep"
    base: Sequence[str] = TINY

    @property
    def command(self) -> str:
        """As it would be typed, without what is the same for all."""
        start = f"src.{self.verb}{' -m' * (self.verb in ('sweep', 'compare'))}"
        own = [*(self.base if self.base not in (TINY, OWN, MODEL) else ()), *self.overrides]
        return " ".join([start, *(f"'{o}'" if set(o) & set(" {[|*$") else o for o in own)])


# --- files with something wrong in them ---


def rows(*more: tuple[object, object], header: str = "text,label", only: bool = False) -> Make:
    return lambda folder: write_rows(folder / "reviews.csv", [*(() if only else GOOD), *more], header)


def content(name: str, what: str | bytes) -> Make:
    return lambda folder: (folder / name).write_bytes(what if isinstance(what, bytes) else what.encode())


def table(**columns: list[object]) -> Make:
    return lambda folder: pd.DataFrame(columns).to_parquet(folder / "reviews.parquet")


def folder_of(*names: str) -> Make:
    """A folder `mine` of files with the same good rows."""

    def make(folder: Path) -> None:
        (folder / "mine").mkdir()
        for name in names:
            separator = "\t" if name.endswith("tsv") else ","
            pd.DataFrame(GOOD, columns=["text", "label"]).to_csv(folder / "mine" / name, index=False, sep=separator)

    return make


def model(change: Callable[[Path], object] = lambda _: None) -> Make:
    """A checkpoint in the folder `model`, with one thing changed."""

    def make(folder: Path) -> None:
        from src.training import pretrained

        source = pretrained.resolve(settings_of("model=tiny").recipe.model, folder / "elsewhere").folder
        shutil.copytree(source, folder / "model")
        shutil.rmtree(folder / "elsewhere")
        change(folder / "model")

    return make


def set_in(file: str, **values: object) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        result = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps(result | values))

    return change


def shortened(file: str, size: int) -> Callable[[Path], object]:
    return lambda folder: os.truncate(folder / file, size)


def with_token(folder: Path) -> None:
    """A tokenizer that knows a word more than the model."""
    result = json.loads((folder / "tokenizer.json").read_text())
    result["model"]["vocab"]["extraordinary"] = len(result["model"]["vocab"])
    (folder / "tokenizer.json").write_text(json.dumps(result))


def without(*names: str) -> Callable[[Path], object]:
    return lambda folder: [(folder / name).unlink() for name in names]


def renamed(old: str, new: str) -> Callable[[Path], object]:
    return lambda folder: (folder / old).rename(folder / new)


COST = """@metric(direction='minimize', low=0, high=5)
def cost(true, predicted):
    missed = (true == 1) & (predicted == 0)
    return 5 * missed.mean()
"""
RULES = """@baseline
def rules(texts, labels):
    return half
"""
OWN_COST = "my_module.py: a metric cost"


def module(body: str) -> Make:
    return lambda folder: write_module(folder, body)


def without_padding(folder: Path) -> None:
    set_in("config.json", model_type="llama", pad_token_id=None)(folder)
    set_in("tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast", pad_token=None)(folder)


def begun_with_code(folder: Path) -> None:
    write_module(folder, COST)
    with nothing_loaded():
        begun(folder, "code=my_module", "study.metric=my_module:cost")


def begun(folder: Path, *overrides: str) -> None:
    """A study in `folder` that nothing was trained for yet."""
    from src.comparison import saved_study
    from src.workflows.sweep.plan import plan_sweep

    settings = settings_of(*TINY, "study.name=mine", *overrides, config="sweep")
    plan = plan_sweep(settings, Paths(folder))
    plan.open_study().create(plan.definition)
    saved_study.save_config(settings, plan.folder)


MODEL = ("model=checkpoint", "model.checkpoint=model", "model.max_tokens=64", "data.max_examples=100")

CONFIG = [
    Case("a group replaced by a word", ["study=mine"]),
    Case("a word for a number", ["study.n_trials=many"]),
    Case("a key that is not a setting", ["+data.colour=red"]),
    Case("a value that points nowhere", ["seed=${nothing}"]),
    Case("several at once come together", ["study.n_trials=many", "+data.colour=red", "workers=none"]),
    Case("a broken number of workers", ["workers=0"]),
    Case("a seed below 0", ["seed=-1"]),
    Case("half a token", ["model.max_tokens=1.5"]),
    Case("a study outside the folder of studies", ["study.name=../up"]),
    Case("an experiment outside the folder of artifacts", ["tracking.experiment=../up"]),
    Case("neither true nor false", ["worker.oom_retry=perhaps"]),
    Case("an unknown kind of progress", ["progress=loud"]),
    Case("a worker without threads", ["worker.cpus=0"]),
    Case("a trial without a device", ["worker.devices_per_trial=0"]),
    Case("a trial on more GPUs than its worker has", ["worker.devices_per_trial=4", "worker.gpus=1"]),
    Case("batches that the devices cannot share", ["worker.devices_per_trial=3"]),
    Case(
        "searched batches that they cannot share",
        ["worker.devices_per_trial=4", "+space.trainer.per_device_train_batch_size.choices=[4,6,8]"],
    ),
    Case("missing values", base=("data=files", "model=tiny")),
    Case("an environment variable that is not set", ["storage.url=${oc.env:NOT_SET_ANYWHERE}"]),
]
MISTYPED = [
    Case("a misspelt setting", ["study.n_trails=5"]),
    Case("a misspelt field of the training", ["optimizer.lerning_rate=1e-4"]),
    Case("a misspelt group", ["sampelr=gp"]),
    Case("a name that is similar to nothing", ["zzzzqqqq=1"]),
    Case("an option that a group does not have", ["data=sst"]),
    Case("a sweep that does not exist", ["sweeps=imdb_star"]),
    Case("a group with a plus", ["+data=imdb"]),
    Case("a setting with a plus", ["+study.n_trials=5"]),
    Case("a field without a plus", ["trainer.neftune_noise_alpha=5"]),
    Case("a searched setting without a plus", ["space.optimizer.adam_beta1.low=0.8"]),
    Case("a token without a plus", ["trainer.hub_token=hf_abcdefghijklmnopqrstuvwxyz"]),
    Case("a list for a mapping", ["data=imdb", "data.label_names=[bad,good]"], base=("model=tiny",)),
    Case("a mapping for a list", ["data.label_names={0: bad, 1: good}"]),
    Case("removing what is not there", ["~space.schedule"]),
    Case("several words at once", ["study.n_trails=5", "tracking=sever", "seed=1"]),
    Case("a word without a value", ["study.n_trials"]),
    Case("a value to be quoted", ["study.name=mine: {1}"]),
    Case("a setting that Hydra does not have", ["hydra.swep.dir=here"]),
    Case("a form of logging that Hydra does not have", ["hydra/job_logging=fancy"]),
    Case("a group that a command does not have", ["data=sst2"], verb="compare", base=()),
    Case("another command's misspelt setting", ["registry.modle=mine"], verb="promote", base=()),
]
VALUES = [
    Case("a learning rate of 0", ["optimizer.learning_rate=0"]),
    Case("a word for a learning rate", ["optimizer.learning_rate=fast"]),
    Case("a learning rate that is no number", ["optimizer.learning_rate=nan"]),
    Case("negative weight decay", ["optimizer.weight_decay=-0.1"]),
    Case("dropping everything out", ["model.dropout=1.0"]),
    Case("no epoch", ["trainer.num_train_epochs=0"]),
    Case("an empty batch", ["trainer.per_device_train_batch_size=0"]),
    Case("half an example in a batch", ["trainer.per_device_eval_batch_size=2.5"]),
    Case("too much label smoothing", ["trainer.label_smoothing_factor=1"]),
    Case("an optimizer that transformers does not have", ["optimizer.optim=adamm"]),
    Case("a schedule that transformers does not have", ["schedule.lr_scheduler_type=lineal"]),
    Case("what Trialbook sets itself", ["+trainer.eval_strategy=epoch"]),
    Case("a token on the command line", ["+trainer.hub_token=hf_abcdefghijklmnopqrstuvwxyz"]),
    Case("no TrainingArguments field", ["+trainer.num_epochs=3"]),
    Case("a field misspelt", ["+optimizer.learning_rat=3"]),
    Case("settings that the optimizer does not read", ["optimizer.optim=sgd"]),
    Case(
        "a searched setting that the schedule does not read",
        ["schedule=constant", "+space.schedule.warmup_steps={low: 0.0, high: 0.2}"],
    ),
    Case("settings that the schedule does not read", ["schedule.lr_scheduler_type=constant"]),
    Case("a GPU that is not there", ["trainer=gpu", "trainer.use_cpu=true"]),
]
STUDY = [
    Case("an unknown metric", ["study.metric=auc"]),
    Case("a metric for more labels", ["study.metric=roc_auc_ovr"]),
    Case("an unknown weighting of labels", ["loss.class_weights=inverse"]),
    Case("a weight for no label of the data", ["loss.class_weights={positve: 5}"]),
    Case("weights of nothing", ["loss.class_weights={positive: 0, negative: -1}"]),
    Case("a weight that is no number", ["loss.class_weights={positive: much}"]),
    Case("a focus below 0", ["loss.focal_gamma=-1"]),
    Case("a setting that the loss does not have", ["+loss.gamma=2"]),
    Case("a searched weighting that is unknown", ["+space.loss.class_weights={choices: [none, inverse]}"]),
    Case("a direction that contradicts the metric", ["study.direction=minimize"]),
    Case("a direction that contradicts the loss", ["study.metric=loss", "study.direction=maximize"]),
    Case("rungs that fall", ["study.rungs=[0.5,0.25,1.0]"]),
    Case("rungs that do not end with 1", ["study.rungs=[0.5]"]),
    Case("no trials", ["study.n_trials=0"]),
    Case("a study's seed below 0", ["study.seed=-1"]),
    Case("fewer restarts than none", ["study.max_restarts=-1"]),
    Case("no time", ["study.budget_minutes=0"]),
    Case("no epochs", ["study.budget_epochs=0"]),
    Case(
        "epochs where the number of steps is set",
        ["study.budget_epochs=9", "+trainer.max_steps=5", "~space.trainer.num_train_epochs"],
    ),
    Case("a threshold that is no choice", ["study.threshold=0.3"]),
    Case("an average of one trial", ["study.average=1"]),
    Case("an average of a word", ["study.average=most"]),
    Case("no patience", ["study.patience=0"]),
    Case("too few examples at a rung", ["study.rung_examples=1"]),
    Case("no disk", ["study.disk_budget_gb=0"]),
    Case("an unknown baseline", ["study.baselines=[oracle]"]),
    Case("a ready-made baseline without labels of these data", ["study.baselines=[ready_made]"]),
    Case("a point to start with that is outside the space", ["study.enqueue=[{optimizer.learning_rate: 5.0}]"]),
    Case("a point to start with whose setting is not searched", ["study.enqueue=[{model.max_tokens: 9}]"]),
    Case("no metric", ["study.metric=[]"]),
    Case("a metric twice", ["study.metric=[accuracy,accuracy]"]),
    Case("a metric under two names", ["study.metric=[loss,log_loss]"]),
    Case("a cost before the metric", ["study.metric=[megabytes,accuracy]"]),
    Case("an unknown metric among several", ["study.metric=[accuracy,megabites]"]),
    Case("a direction for several metrics", ["study.metric=[accuracy,megabytes]", "study.direction=maximize"]),
    Case("a sampler of one metric for several", ["study.metric=[accuracy,megabytes]", "sampler=cmaes"]),
    Case("a pruner of one metric for several", ["study.metric=[accuracy,megabytes]", "pruner=hyperband"]),
    Case("a constraint without bounds", ["study.constraints={megabytes:{}}"]),
    Case("a constraint that is a number", ["study.constraints={megabytes:100}"]),
    Case("a constraint on something unknown", ["study.constraints={gigabytes:{max:1}}"]),
    Case("a constraint without a number", ["study.constraints={megabytes:{max:nan}}"]),
    Case("a constraint beyond what the metric can be", ["study.constraints={accuracy:{min:1.5}}"]),
    Case("a constraint that nothing can be within", ["study.constraints={f1:{min:0.9,max:0.8}}"]),
]
SPACE = [
    Case("an empty space", ["space=empty"]),
    Case("a searched key that the config does not have", ["+space.optimizer.learning_rat={low: 1e-5, high: 1e-4}"]),
    Case("a searched seed", ["+space.seed={low: 1, high: 9}"]),
    Case("searched data", ["+space.data.balance={choices: [true, false]}"]),
    Case("a searched model that the group does not have", ["+space.model.choices=[tiny,gpt9]"]),
    Case("a searched model that does not exist", ["+space.model.checkpoint.choices=[./here,./there]"]),
    Case("a number for a range", ["+space.trainer.logging_steps=3"]),
    Case("a range upside down", ["space.trainer.num_train_epochs.low=9"]),
    Case("a range without an end", ["+space.optimizer.adam_beta1={low: 0.8}"]),
    Case("a factor that changes nothing", ["space.optimizer.learning_rate.factor=1"]),
    Case("a logarithm of 0", ["space.optimizer.learning_rate.low=0.0"]),
    Case("steps that do not end", ["+space.optimizer.adam_beta1={low: 0.8, high: 0.95, step: 0.1}"]),
    Case("no choices", ["+space.optimizer.adam_beta1={choices: []}"]),
    Case("a choice twice", ["+space.optimizer.adam_beta1={choices: [0.9, 0.9]}"]),
    Case("values that make no sense", ["space.model.dropout.high=1.5"]),
    Case("a condition that is not one", ["+space.optimizer.adam_beta2={low: 0.9, high: 0.99, when: true}"]),
    Case("a condition on nothing", ["+space.optimizer.adam_beta2={low: 0.9, high: 0.99, when: {schedule.nothing: 1}}"]),
    Case("a condition that never holds", ["+space.optimizer.adam_beta2={low: 0.9, high: 0.99, when: {optimizer.optim: sgd}}"]),
    Case("conditions that depend on each other", ["+space.optimizer.adam_beta1={low: 0.8, high: 0.9, when: {optimizer.adam_beta2: 1}}",
                                    "+space.optimizer.adam_beta2={low: 0.9, high: 0.99, when: {optimizer.adam_beta1: 1}}"]),
    Case("a length that something else decides", ["+trainer.max_steps=5"]),
    Case("a grid without steps", ["sampler=grid"]),
    Case("code to run, from a config", ["sampler._target_=os.system"]),
    Case("a function for a sampler", ["sampler._target_=optuna.samplers._base._process_constraints_after_trial"]),
    Case("a pruner that does not exist", ["pruner._target_=optuna.pruners.Nothing"]),
    Case("an option that the sampler does not have", ["+sampler.colour=red"]),
]  # fmt: skip
MODELS = [
    Case("no such folder", ["model.checkpoint=./nowhere"], base=MODEL),
    Case("a folder without a model", make=lambda f: (f / "model").mkdir(), files="model/: empty", base=MODEL),
    Case("a checkpoint without weights", make=model(without("model.safetensors")), files="model/: no weights", base=MODEL),
    Case("weights as a pickle", make=model(renamed("model.safetensors", "pytorch_model.bin")),
         files="model/pytorch_model.bin", base=MODEL),
    Case("weights cut short", make=model(shortened("model.safetensors", 1000)), files="model/model.safetensors: its first 1,000 bytes",
         base=MODEL),
    Case("other weights than the config says", make=model(),
         overrides=["+model.pins={model: {sha256: " + "0" * 64 + "}}"], files="model/", base=MODEL),
    Case("a broken config.json", make=model(lambda f: (f / "config.json").write_text("{")), files="model/config.json: {", base=MODEL),
    Case("a model of another kind", make=model(set_in("config.json", model_type="ernie")), files="model/config.json: ernie", base=MODEL),
    Case("a model that classifies no texts", ["model.dropout=null", "~space.model.dropout"],
         make=model(set_in("config.json", model_type="clip")), files="model/config.json: clip", base=MODEL),
    Case("a model whose dropout cannot be searched", ["model.dropout=null"],
         make=model(set_in("config.json", model_type="ernie")), files="model/config.json: ernie", base=MODEL),
    Case("a model without a padding token", ["model.dropout=null", "~space.model.dropout"],
         make=model(without_padding), files="model/: llama, no padding token", base=MODEL),
    Case("pairs for a decoder", ["data=files", "data.path=reviews.csv", "data.text_column=[text,other]", "data.label_names=[no,yes]"],
         make=lambda folder: write_rows(folder / "reviews.csv", [(f"{t},again {t}", label) for t, label in GOOD], "text,other,label"),
         files="reviews.csv: text,other,label", base=("model=tiny_decoder",)),
    Case("a threshold for a head without a bias", ["study.threshold=tuned"], base=("model=tiny_decoder", "data.max_examples=100")),
    Case("a random model that there is not", ["model.checkpoint=random://gpt"]),
    Case("an adapter that there is not", ["adapter=loar"]),
    Case("an adapter's setting without an adapter", ["+adapter.rank=4"]),
    Case("an adapter as a setting", ["adapter.method=lora"]),
    Case("a rank of zero", ["adapter=lora", "adapter.rank=0"]),
    Case("modules that the model does not have", ["adapter=lora", "adapter.target_modules=[q_proj]"]),
    Case("no modules", ["adapter=lora", "adapter.target_modules=[]"]),
    Case("an adapter's method searched", ["adapter=lora", "+space.adapter.method.choices=[lora,dora]"]),
    Case("a dtype that there is not", ["model.dtype=float16"]),
    Case("a searched dtype that there is not", ["+space.model.dtype.choices=[float32,8bit]"]),
    Case("weights in 4 bits, searched with and without an adapter",
         ["+space.adapter.choices=[none,lora]", "+space.model.dtype.choices=[float32,4bit]"]),
    Case("an adapter as a checkpoint", make=model(lambda f: (f / "adapter_config.json").write_text("{}")),
         files="model/adapter_config.json", base=MODEL),
    Case("weights in 4 bits without an adapter", ["model.dtype=4bit"]),
    Case("16-bit weights trained in 32 bits", ["model.dtype=bfloat16", "trainer.bf16=false"]),
    Case("no tokenizer", make=model(without("tokenizer.json", "tokenizer_config.json")), files="model/: no tokenizer", base=MODEL),
    Case("another model's tokenizer", make=model(with_token), files="model/tokenizer.json: a token too many", base=MODEL),
    Case("longer texts than the model takes", ["model.max_tokens=129"], make=model(), files="model/: 128 positions", base=MODEL),
    Case("the Hub out of reach", ["model=distilbert"]),
]  # fmt: skip
DATA = [
    Case("no such file", ["data.path=none.csv"], base=OWN),
    Case("a folder without a file", ["data.path=."], base=OWN),
    Case("a file of another kind", ["data.path=reviews.docx"], content("reviews.docx", "x"), "reviews.docx", base=OWN),
    Case("no workbook", ["data.path=reviews.xlsx"], content("reviews.xlsx", "x"), "reviews.xlsx: x", base=OWN),
    Case("no archive", ["data.path=reviews.csv.gz"], content("reviews.csv.gz", "text,label\n"), "reviews.csv.gz: csv", base=OWN),
    Case("a comma in a file's name", ["data.path=reviews"], content("reviews,2024.csv", "text,label\n"), "reviews,2024.csv", base=OWN),
    Case("an empty file", make=content("reviews.csv", ""), files="reviews.csv: empty", base=OWN),
    Case("a header and nothing else", make=content("reviews.csv", "text,label\n"), files="reviews.csv: text,label", base=OWN),
    Case("no column of texts", make=rows(header="words,label"), files="reviews.csv: words,label", base=OWN),
    Case("no column of labels", make=rows(header="text,stars"), files="reviews.csv: text,stars", base=OWN),
    Case("not UTF-8", make=content("reviews.csv", b"text,label\ncaf\xe9,yes\n"), files="reviews.csv: Latin-1", base=OWN),
    Case("a name of an encoding that does not exist", ["data.encoding=latin-42"], rows(), "reviews.csv", base=OWN),
    Case("UTF-16", make=content("reviews.csv", "text,label\nfine,yes\n".encode("utf-16")), files="reviews.csv: UTF-16", base=OWN),
    Case("a cell too many", make=content("reviews.csv", "text,label\nfine, warm,yes\ndull,no\n"), files="reviews.csv: fine, warm,yes", base=OWN),
    Case("a cell too few", make=content("reviews.csv", "text,label\nfine\ndull,no\n"), files="reviews.csv: fine", base=OWN),
    Case("a separator of two characters", ["data.csv.separator='::'"], rows(), "reviews.csv", base=OWN),
    Case("a quotation mark that never ends", ["data.csv.quote='\"'"], content("reviews.csv", 'text,label\n"fine,yes\ndull,no\n'), 'reviews.csv: "fine', base=OWN),
    Case("a column twice", make=content("reviews.csv", "text,label,text\na,yes,b\n"), files="reviews.csv: text,label,text", base=OWN),
    Case("texts that are lists", ["data.path=reviews.jsonl"], content("reviews.jsonl", '{"text": ["a", "b"], "label": "yes"}\n'),
         "reviews.jsonl: a list", base=OWN),
    Case("labels that are lists", ["data.path=reviews.jsonl"], content("reviews.jsonl", '{"text": "a", "label": ["yes"]}\n'),
         "reviews.jsonl: a list", base=OWN),
    Case("half a character", ["data.path=reviews.jsonl"], content("reviews.jsonl", '{"text": "a \\ud83d", "label": "yes"}\n'),
         "reviews.jsonl: \\ud83d", base=OWN),
    Case("several tables in one file", ["data.path=reviews.json"], content("reviews.json", '{"train": [{"text": "a"}], "test": [{"text": "b"}]}'),
         "reviews.json: train and test", base=OWN),
    Case("an array of words", ["data.path=reviews.json"], content("reviews.json", '["a", "b"]'), "reviews.json: words", base=OWN),
    Case("broken JSON lines", ["data.path=reviews.jsonl"], content("reviews.jsonl", '{"text": "a", "label": "yes"}\n{"text": "b"\n'),
         "reviews.jsonl: cut off", base=OWN),
    Case("broken JSON", ["data.path=reviews.json"], content("reviews.json", '[{"text": "a", "label"'), "reviews.json: cut off", base=OWN),
    Case("no parquet", ["data.path=reviews.parquet"], content("reviews.parquet", "text,label\n"), "reviews.parquet: csv", base=OWN),
    Case("empty texts", make=rows(("", "no"), ("  ", "yes")), files="reviews.csv: two texts empty", base=OWN),
    Case("missing texts", ["data.path=reviews.parquet"], table(text=["a", None], label=[0, 1]), "reviews.parquet: a null", base=OWN),
    Case("a label that is no name", make=rows(("fine", "maybe")), files="reviews.csv: label maybe", base=OWN),
    Case("a label that is no index", make=rows(("fine", 2)), files="reviews.csv: label 2", base=OWN),
    Case("a missing label", make=rows(("fine", "")), files="reviews.csv: no label", base=OWN),
    Case("hidden labels", make=rows(("fine", -1)), files="reviews.csv: label -1", base=OWN),
    Case("one label only", make=rows(*((t, "yes") for t, _ in GOOD), only=True), files="reviews.csv: only yes", base=OWN),
    Case("ids twice", ["data.id_column=id"], lambda f: pd.DataFrame(GOOD, columns=["text", "label"]).assign(
        id=[min(i, 117) for i in range(120)]).to_csv(f / "reviews.csv", index=False), "reviews.csv: id 117 three times", base=OWN),
    Case("no column of ids", ["data.id_column=id"], rows(), "reviews.csv: text,label", base=OWN),
    Case("one column for both", ["data.label_column=text"], rows(), "reviews.csv", base=OWN),
    Case("a split that is not there", ["data.splits.train=training"], rows(), "reviews.csv", base=OWN),
    Case("two names of the same split", ["data.path=mine"], folder_of("train.csv", "val.csv", "dev.csv"), "mine/: train, val, dev", base=OWN),
    Case("a split in two files", ["data.path=mine"], folder_of("train.csv", "train.tsv"), "mine/: train.csv, train.tsv", base=OWN),
    Case("a part that is missing", ["data.path=mine"], folder_of("train-00000-of-00002.csv"), "mine/: one of two parts", base=OWN),
    Case("no split to train on", ["data.path=mine"], folder_of("reviews.csv"), "mine/: reviews.csv", base=OWN),
    Case("a split of another name", ["+data.splits.dev=dev"], rows(), "reviews.csv", base=OWN),
    Case("nothing to carve from", ["~data.carve.test"], rows(), "reviews.csv", base=OWN),
    Case("everything carved away", ["data.carve.test.size=120"], rows(), "reviews.csv: 120 rows", base=OWN),
    Case("splits carved out of each other", ["data.carve.validation.source=test", "data.carve.test.source=validation"], rows(),
         "reviews.csv", base=OWN),
    Case("a carved split of nothing", ["data.carve.test.size=-1"], rows(), "reviews.csv", base=OWN),
    Case("more than there is", ["+data.subset.train=500"], rows(), "reviews.csv: 120 rows", base=OWN),
    Case("more of a label than there is", ["+data.subset.train=60", "data.balance=true"],
         rows(*((t, "yes") for t, _ in GOOD), ("dull", "no"), only=True), "reviews.csv: one no", base=OWN),
    Case("a name that no row has", ["data.label_names=[no,yes,perhaps]"], rows(), "reviews.csv: no and yes", base=OWN),
    Case("other names than the file's", ["data.label_names=[bad,good]"], rows(), "reviews.csv: no and yes", base=OWN),
    Case("truth values for positions", ["data.path=reviews.parquet"], table(text=["a", "b"], label=[True, False]),
         "reviews.parquet: True and False", base=OWN),
    Case("a list without brackets", ["data.label_names=yes"], rows(), "reviews.csv", base=OWN),

    Case("a label that only test has", ["data.path=mine", "data.label_names=null"],
         lambda f: [folder_of("train.csv", "test.csv")(f), (f / "mine/test.csv").open("a").write("so so,maybe\n")], "mine/: maybe in test.csv", base=OWN),
    Case("a test split without labels", ["data.path=mine", "data.label_names=null"],
         lambda f: [folder_of("train.csv")(f), (f / "mine/test.csv").write_text("id,text\n1,fine\n")], "mine/: id,text in test.csv", base=OWN),
    Case("a column of texts for labels", ["data.label_column=text", "data.text_column=label", "data.label_names=null"], rows(), "reviews.csv", base=OWN),
    Case("a pair's second column missing", ["data.text_column=[text,hypothesis]"], rows(), "reviews.csv", base=OWN),
    Case("three columns of texts", ["data.text_column=[a,b,c]"], rows(), "reviews.csv", base=OWN),
    Case("phrases of pairs", ["data.text_column=[text,label]", "data.label_column=id", "data.drop_parts=true"], rows(), "reviews.csv", base=OWN),
    Case("several labels in one cell", ["data.task=multi_label"], rows(), "reviews.csv", base=OWN),
    Case("a separator without a task", ["data.label_separator=','"], rows(), "reviews.csv", base=OWN),
    Case("columns of labels without a task", ["data.label_column=[yes,no]"], rows(), "reviews.csv", base=OWN),
    Case("a list of labels without a task", ["data.path=reviews.parquet"], table(text=["a", "b"], label=[["yes"], ["no", "yes"]]),
         "reviews.parquet", base=OWN),
    Case("a metric of one label for several", ["data.task=multi_label", "data.label_separator=','", "study.metric=balanced_accuracy"],
         rows(), "reviews.csv", base=OWN),
    Case("a word among numbers", ["data.task=regression", "data.label_names=null", "study.metric=mae"], rows(), "reviews.csv", base=OWN),
    Case("names for numbers", ["data.task=regression"], rows(), "reviews.csv", base=OWN),
    Case("a metric of labels for numbers", ["data.task=regression", "data.label_names=null", "study.metric=f1"],
         rows(*((f"text {i}", i) for i in range(90)), only=True), "reviews.csv: numbers", base=OWN),
    Case("a threshold for numbers", ["data.task=regression", "data.label_names=null", "study.metric=mae", "study.threshold=tuned"],
         rows(*((f"text {i}", i) for i in range(90)), only=True), "reviews.csv: numbers", base=OWN),
    Case("a baseline of labels for numbers", ["data.task=regression", "data.label_names=null", "study.metric=mae", "study.baselines=[ready_made]"],
         rows(*((f"text {i}", i) for i in range(90)), only=True), "reviews.csv: numbers", base=OWN),
    Case("a metric of numbers for labels", ["study.metric=mse"], rows(), "reviews.csv", base=OWN),
    Case("thresholds per label for one label", ["study.threshold=per_label"], rows(), "reviews.csv", base=OWN),
    Case("several labels, balanced", ["data.task=multi_label", "data.label_separator=','", "data.balance=true"], rows(), "reviews.csv", base=OWN),
    Case("one label's name", ["data.label_names=[yes]"], rows(), "reviews.csv", base=OWN),
    Case("a label's name twice", ["data.label_names=[yes,yes]"], rows(), "reviews.csv", base=OWN),
    Case("a split of one example", ["data.max_examples=1"]),
    Case("a word for a size", ["data.max_examples=many"]),
    Case("a size for another split", ["data.max_examples={dev: 5}"]),
    Case("data on the Hub, out of reach", ["data=imdb"]),
]  # fmt: skip
PLACES = [
    Case("an unknown kind of store", ["tracking.uri=nothing://me:secret@host/x"]),
    Case("a server that does not answer", ["tracking.uri=http://127.0.0.1:9"]),
    Case("an unknown kind of database", ["storage.url=nothing://me:secret@host/x"]),
    Case("a database server that does not answer", ["storage.url=postgresql+psycopg://me:secret@127.0.0.1:9/x"]),
    Case("workers without a common folder, and records in it", ["worker.home=/somewhere/else"]),
    Case("nothing can be written", make=content("mlruns", "a file"), files="mlruns: a file"),
]
STARTED = [
    Case(
        "a study that exists with another definition",
        ["study.name=mine", "data.max_examples=90"],
        begun,
        "the study mine, begun",
    ),
    Case(
        "other pruning than it began with", ["study.name=mine", "study.rungs=[0.5,1.0]"], begun, "the study mine, begun"
    ),
    Case(
        "the same under another storage",
        ["study.name=mine", "storage=sqlite"],
        lambda f: (f / "mlruns/studies/mine/trials/0000").mkdir(parents=True),
        "the study mine in another storage",
    ),
    Case("trials of a study that is not there", ["study.inherit=nobody"], begun, "the study mine, begun"),
    Case("its own trials", ["study.name=mine", "study.inherit=mine"]),
    Case(
        "trials of a study on other data",
        ["study.inherit=mine", "data.max_examples=90"],
        begun,
        "the study mine, begun",
    ),
    Case(
        "trials of a study for another metric",
        ["study.inherit=mine", "study.metric=f1"],
        begun,
        "the study mine, begun",
    ),
    Case("trials of a study that has none", ["study.inherit=mine"], begun, "the study mine, begun"),
    Case("settings of a study that is not there", ["study.learn_from=[nobody]"]),
    Case("settings of a study without a list", ["study.learn_from=mine"]),
    Case(
        "settings of a study that searched other keys",
        ["study.learn_from=[mine]", "~space.model"],
        begun,
        "the study mine, begun",
    ),
    Case("settings of a study without a complete trial", ["study.learn_from=[mine]"], begun, "the study mine, begun"),
    Case("settings of its own for a study that it joins", ["study.join=mine", "data.max_examples=90"], base=()),
    Case(
        "a comparison before anything was trained", ["study.name=mine"], begun, "the study mine, begun", "compare", ()
    ),
    Case("a promotion without a verdict", ["study.name=mine"], begun, "the study mine, begun", "promote", ()),
]
VERBS = [
    Case("a comparison without a study", verb="compare", base=()),
    Case("a study that was not searched", ["study.name=mine"], verb="compare", base=()),
    Case("an unknown way to pick a trial", ["compare.pick=elbow"], verb="compare", base=()),
    Case("too few fresh seeds", ["compare.seeds=3"], verb="compare", base=()),
    Case("no candidates", ["compare.top_k=0"], verb="compare", base=()),
    Case("a margin below zero", ["compare.margin=-0.1"], verb="compare", base=()),
    Case("a form that does not exist", ["deliver.form=best"], verb="compare", base=()),
    Case("a refit that is not made", ["deliver.form=refit", "deliver.refit=false"], verb="compare", base=()),
    Case("an average that is not merged", ["deliver.merge=false"], verb="compare", base=()),
    Case("a temperature of zero", ["deliver.temperature=0"], verb="compare", base=()),
    Case("unlabelled texts that are not there", ["data.unlabelled=more.csv"]),
    Case(
        "unlabelled texts in a column of another name",
        ["data.unlabelled=more.csv"],
        lambda folder: write_rows(folder / "more.csv", GOOD[:3], "review,stars"),
        "more.csv, columns review and stars",
    ),
    Case("a screening without models", ["screening.keep=2"]),
    Case("a screening that keeps none", ["+space.model.choices=[tiny,minilm]", "screening.keep=0"]),
    Case(
        "a screening on too few texts",
        ["+space.model.choices=[tiny,minilm]", "screening.keep=1", "screening.examples=10"],
    ),
    Case("a promotion without a study", verb="promote", base=()),
    Case("a registry's name with a slash", ["registry.model=a/b"], verb="promote", base=()),
    Case("no repository to publish to", verb="publish", base=()),
    Case("a repository without an owner", ["repo=letters"], verb="publish", base=()),
    Case("nothing to publish", ["repo=me/letters"], verb="publish", base=()),
    Case("no run to reproduce", verb="reproduce", base=()),
    Case("no store to reproduce from", ["run=0123"], verb="reproduce", base=()),
]
OWN_CODE = [
    Case("a module that is not there", ["code=my_module"]),
    Case("a file's name for a module", ["code=my_module.py"]),
    Case("a module with the name of another", ["code=pandas"], content("pandas.py", ""), "pandas.py: empty"),
    Case("a module that raises an error", ["code=my_module"], module("1 / 0"), "my_module.py: 1 / 0"),
    Case("a metric of a module that is not imported", ["study.metric=my_module:cost"], module(COST), OWN_COST),
    Case("a metric that the module does not have", ["code=my_module", "study.metric=my_module:costs"], module(COST), OWN_COST),
    Case("a metric without a range", ["code=my_module", "study.metric=my_module:cost"],
         module(COST.replace(", high=5", "")), "my_module.py: metric(direction='minimize', low=0)"),
    Case("a metric that returns a word", ["code=my_module", "study.metric=my_module:cost"],
         module(COST.replace("5 * missed.mean()", "'much'")), "my_module.py: returns 'much'"),
    Case("a metric that is undefined without a label", ["code=my_module", "study.metric=my_module:cost"],
         module(COST.replace("5 * missed.mean()", "5 * missed.sum() / (true == 1).sum()")), "my_module.py: missed.sum() / (true == 1).sum()"),
    Case("a baseline that raises an error", ["code=my_module", "study.baselines=[my_module:rules]"], module(RULES.replace("half", "texts.nothing")),
         "my_module.py: texts.nothing"),
    Case("a baseline that gives one number a text", ["code=my_module", "study.baselines=[my_module:rules]"],
         module(RULES.replace("half", "lambda texts: [0.5 for text in texts]")), "my_module.py: [0.5 for text in texts]"),
    Case("a baseline that there is not", ["study.baselines=[majorty]"]),
    Case("a loader that returns a frame", ["code=my_module", "data=loader", "data.loader=my_module:load"],
         module("@loader\ndef load(path):\n    return pd.DataFrame({'text': ['a'], 'label': ['b']})"), "my_module.py: returns a frame"),
    Case("a loader without a name", ["data=loader"]),
    Case("code of your own on other machines", ["code=my_module", "worker.home=/somewhere/else", "workers=2"], module(COST), OWN_COST),
    Case("a study's code not named again", ["study.name=mine"], begun_with_code, "the study mine, begun with my_module.py", "compare", ()),
]  # fmt: skip
WITH = {
    "Models": f"With `{' '.join(MODEL)}`, where nothing else is said.",
    "Data": f"With `{' '.join(OWN)}`, and 120 good rows in reviews.csv, where nothing else is said.",
}
GROUPS = {
    "The command line": MISTYPED, "The config as a whole": CONFIG, "Settings of the training": VALUES,
    "The study": STUDY, "The space": SPACE, "Models": MODELS, "Data": DATA, "Where things go": PLACES,
    "Your own code": OWN_CODE, "Studies that exist": STARTED, "Other commands": VERBS,
}  # fmt: skip
CASES = [case for cases in GROUPS.values() for case in cases]


def refusal(case: Case, folder: Path) -> tuple[str, list[str]]:
    """What is said to `case` in `folder`, whole, and what of studies and stores is there that was not before.

    The folder's own name is <folder> in what is said.
    """
    with chdir(folder), offline(), nothing_loaded():
        if case.make:
            case.make(folder)
        before = kept(folder)
        try:
            VERB[case.verb](case, Paths(folder))
        except (InvalidInput, HydraException) as error:
            message = str(error) if isinstance(error, InvalidInput) else _mistyped(error, case)
            return message.replace(str(folder), "<folder>"), sorted(kept(folder) - before)
    raise AssertionError(f"{case.what}: {case.command} is not refused")


def _mistyped(error: HydraException, case: Case) -> str:
    primary, words = help_pages.PAGES[case.verb].config, [*case.base, *case.overrides]
    return override_errors.explain(error, override_errors.ConfigSources(CONF_DIR, primary, help_pages.groups()), words)


def _sweep(case: Case, paths: Paths) -> None:
    from src.workflows import join
    from src.workflows.sweep.plan import plan_sweep

    settings = settings_of(*case.base, *case.overrides, config="sweep")
    if settings.study.join:
        join.joined_overrides(settings, paths, case.overrides)
    plan_sweep(settings, paths)


def _of(case: Case) -> Any:
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return compose(case.verb, overrides=list(case.overrides))


def _compare(case: Case, paths: Paths) -> None:
    from src.workflows.compare.plan import plan_comparison

    plan_comparison(reader.read_comparison_settings(_of(case)), paths)


def _promote(case: Case, paths: Paths) -> None:
    from src.workflows import promote

    promote.promote(reader.read_promotion_settings(_of(case)), paths)


def _publish(case: Case, paths: Paths) -> None:
    from src.workflows import publish

    publish.publish(reader.read_publication_settings(_of(case)), paths)


def _reproduce(case: Case, paths: Paths) -> None:
    from src.workflows import reproduce

    cfg = _of(case)
    run_id = None if cfg.run is None else str(cfg.run)
    reproduce.reproduce(run_id, cfg.tracking_uri, reader.read_code(cfg), paths)


VERB: dict[str, Callable[[Case, Paths], None]] = {
    "sweep": _sweep, "compare": _compare, "promote": _promote, "publish": _publish, "reproduce": _reproduce,
}  # fmt: skip


@contextmanager
def offline() -> Any:
    """As with HF_HUB_OFFLINE=1: the Hub is out of reach, and nobody waits for it."""
    from huggingface_hub import constants

    from src.data import hub_access

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    hub_access.why_unreachable.cache_clear()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
        hub_access.why_unreachable.cache_clear()


def kept(folder: Path) -> set[str]:
    """Studies, trials, runs, trainings and stores in `folder`: what a refused command adds nothing to."""
    places = ("mlflow.db", "mlruns/studies", "mlruns/trainings", "mlruns/openings", "mlruns/artifacts")
    below = (file for place in places for file in [folder / place, *(folder / place).rglob("*")] if file.exists())
    return {str(file.relative_to(folder)) for file in below if file.suffix != ".lock"}


def row(case: Case, said: str) -> str:
    """The case as a row of the page."""
    where = f"<br>{case.files}" if case.files else ""
    cells = (case.what, f"`{case.command}`{where}", "<br>".join(said.splitlines()))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def page(rows_of: dict[str, list[str]]) -> str:
    parts = [HEAD]
    for title, rows_ in rows_of.items():
        parts += [
            f"\n## {title}\n",
            *([WITH[title] + "\n"] if title in WITH else []),
            "| problem | command | message |",
            "| --- | --- | --- |",
            *rows_,
        ]
    return "\n".join(parts) + "\n"


def main() -> None:
    result: dict[str, list[str]] = {}
    for title, cases in GROUPS.items():
        for case in cases:
            with tempfile.TemporaryDirectory() as folder:
                message, _ = refusal(case, Path(folder).resolve())
            result.setdefault(title, []).append(row(case, message))
    PAGE.write_text(page(result))
    subprocess.run(["git", "--no-pager", "diff", "--stat", str(PAGE)], check=False)


if __name__ == "__main__":
    main()
