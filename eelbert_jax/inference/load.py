"""From a config, or from a run's folder, to a model: what all jobs that touch one share."""

import dataclasses
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections

import eelbert_jax
from eelbert_jax.datasets.conll import TOKENS
from eelbert_jax.datasets.tasks import find_task
from eelbert_jax.errors import UserError
from eelbert_jax.hashing.spec import HashSpec
from eelbert_jax.interchange.folder import is_folder, read_folder
from eelbert_jax.model import bert
from eelbert_jax.model.config import BertConfig
from eelbert_jax.record import Fields
from eelbert_jax.training.checkpoint import Checkpoints
from eelbert_jax.vocabulary import Vocabulary, load_vocabulary
from eelbert_jax.workdir import BEST_NAME, CHECKPOINTS_NAME, CONFIG_NAME, VOCABULARY_NAME, read_json

NOT_IDENTITY = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "dtype",
    "embedding_mode",
    "num_labels",
)
"""Fields of `BertConfig` that a run may change when it takes up a checkpoint."""


class Pretrained(NamedTuple):
    """A pre-trained model as a run's folder, or a folder in the Hugging Face layout, holds it.

    Attributes:
      config: sizes, embedder, hash; without dropout, float32.
      vocabulary: of the rows it was trained on.
      params: of `bert.BertForMaskedLM`; of an imported model its pooler too, and no "cls" where it has none.
      constants: the collection beside them.
      step: completed updates; None of an imported model, which does not say.
      lowercase: how its text was read.
    """

    config: BertConfig
    vocabulary: Vocabulary
    params: Any
    constants: Any
    step: int | None
    lowercase: bool

    @property
    def is_imported(self) -> bool:
        """Whether it is of a folder in the Hugging Face layout and not of a run."""
        return self.step is None


class Finetuned(NamedTuple):
    """A fine-tuned model as a run's folder holds it, at its best step.

    Attributes:
      config: sizes, embedder, hash, number of labels; without dropout, float32.
      vocabulary: of the run.
      params: of `bert.BertForTokenClassification` where it tags words, else `BertForSequenceClassification`.
      constants: the collection beside them.
      step: completed updates.
      task: name of the task.
      labels: names of the classes in the order of the outputs; () for a regression.
      reads_pairs: the task is about two texts.
      max_length: tokens that an example had at most.
      lowercase: how its text was read.
    """

    config: BertConfig
    vocabulary: Vocabulary
    params: Any
    constants: Any
    step: int
    task: str
    labels: tuple[str, ...]
    reads_pairs: bool
    max_length: int
    lowercase: bool

    @property
    def tags_words(self) -> bool:
        """Whether it gives a tag to every word, and not a label to a text."""
        return self.task == TOKENS


def bert_config(model: ml_collections.ConfigDict, vocab_size: int) -> BertConfig:
    """Return the frozen `BertConfig` that `config.model` describes.

    Raises:
      UserError: a value out of range, or a `vocab_size` other than the rows'.
    """
    fields = model.to_dict()
    if fields["vocab_size"] not in (None, vocab_size):
        raise UserError(
            f"config.model.vocab_size={fields['vocab_size']}, but the rows' vocabulary has {vocab_size} "
            "tokens; leave it empty, or prepare the rows with the vocabulary you mean."
        )
    fields["vocab_size"] = vocab_size
    split = fields["hash"]["split"]
    if split.replace(",", "").isdecimal():
        fields["hash"]["split"] = [int(width) for width in split.split(",")]
    fields["hash"] = HashSpec.from_dict(fields["hash"])
    return BertConfig(**fields)


def identity(config: BertConfig, vocabulary: Vocabulary, lowercase: bool) -> dict[str, Any]:
    """Return what a checkpoint is of, as JSON types: sizes, how text is read, and the hash, if any."""
    hashed = config.embedding != "table"
    fields = {name: value for name, value in dataclasses.asdict(config).items() if name not in NOT_IDENTITY}
    fields["hash"] = config.hash.to_dict() if hashed else None
    return {
        "model": fields,
        "vocabulary": vocabulary.fingerprint,
        "lowercase": lowercase,
        "hash": config.hash.fingerprint if hashed else None,
    }


def environment() -> dict[str, Any]:
    """Return versions, devices and, of a checkout, the commit, for the record of a run."""
    return {
        "eelbert_jax": eelbert_jax.__version__,
        "commit": _commit(Path(eelbert_jax.__file__).parents[1]),
        "jax": jax.__version__,
        "python": platform.python_version(),
        "devices": [device.device_kind for device in jax.devices()],
        "processes": jax.process_count(),
    }


def _commit(checkout: Path) -> str | None:
    """Return the commit of the project's own checkout, with "+" if files differ from it; None elsewhere."""
    if not (checkout / ".git").exists() or shutil.which("git") is None:
        return None
    git = ["git", "-C", str(checkout)]
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    changes = subprocess.run(
        [*git, "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True, check=False
    )
    return head.stdout.strip() + ("+" if changes.stdout.strip() else "") or None


def load_pretrained(workdir: str | Path, *, needs_head: bool = True) -> Pretrained:
    """Load the newest checkpoint of `eelbert pretrain` in `workdir`, or a folder in the Hugging Face layout.

    Args:
      workdir: either folder.
      needs_head: the MLM head is wanted. False reads of an imported model the encoder alone, so that a
        sentence encoder or a classifier will do.

    Raises:
      UserError: there is none, it is of a fine-tuned model, it lacks the head, or its vocabulary or hash are
        not what this version computes.
    """
    workdir = Path(workdir)
    if is_folder(workdir):
        return _import_pretrained(workdir, needs_head)
    with Checkpoints(workdir / CHECKPOINTS_NAME, create=False) as checkpoints:
        saved = checkpoints.identity()
        if "task" in saved:
            raise UserError(
                f"{workdir} holds a model fine-tuned on {saved['task']['name']}; a pre-trained one is needed "
                "here: name the workdir of `eelbert pretrain`."
            )
        vocabulary = load_vocabulary(workdir / VOCABULARY_NAME)
        config = _saved_config(saved)
        params = _restore(
            checkpoints, bert.BertForMaskedLM(config), identity(config, vocabulary, saved["lowercase"])
        )
        step = checkpoints.latest_step()
    assert step is not None
    return Pretrained(
        config, vocabulary, params, bert.constants(config, vocabulary), step, saved["lowercase"]
    )


def _import_pretrained(folder: Path, needs_head: bool) -> Pretrained:
    """Return the model of a folder in the Hugging Face layout."""
    config, vocabulary, params, lowercase = read_folder(folder, heads=needs_head)
    if needs_head and "cls" not in params:
        raise UserError(
            f"{folder} holds no head to predict tokens with; name a model that was saved as BertForMaskedLM."
        )
    config = dataclasses.replace(config, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    on_device = jax.tree.map(jnp.asarray, params)
    return Pretrained(config, vocabulary, on_device, bert.constants(config, vocabulary), None, lowercase)


def load_finetuned(workdir: str | Path) -> Finetuned:
    """Load the best checkpoint of `eelbert finetune` in `workdir`.

    Raises:
      UserError: there is none, it is of a pre-trained model, or its vocabulary or hash are not what this
        version computes.
    """
    workdir = Path(workdir)
    if (workdir / CHECKPOINTS_NAME).is_dir() and not (workdir / BEST_NAME).is_dir():
        raise UserError(
            f"{workdir} holds no fine-tuned model but checkpoints alone, as `eelbert pretrain` leaves them: "
            f"run `eelbert finetune --config.pretrained={workdir}` and name its workdir."
        )
    with Checkpoints(workdir / BEST_NAME, create=False) as checkpoints:
        saved = checkpoints.identity()
        vocabulary = load_vocabulary(workdir / VOCABULARY_NAME)
        labels = tuple(saved["task"]["labels"])
        config = dataclasses.replace(_saved_config(saved), num_labels=max(len(labels), 1))
        meant = {**identity(config, vocabulary, saved["lowercase"]), "task": saved["task"]}
        tags_words = saved["task"]["name"] == TOKENS
        head = bert.BertForTokenClassification if tags_words else bert.BertForSequenceClassification
        params = _restore(checkpoints, head(config), meant)
        step = checkpoints.latest_step()
    assert step is not None
    settings = Fields(workdir / CONFIG_NAME, read_json(workdir / CONFIG_NAME))
    task = saved["task"]["name"]
    if task == "custom":
        reads_pairs = settings.take("custom", dict)["second_text_column"] is not None
    else:
        reads_pairs = task != TOKENS and len(find_task(task).text_fields) == 2
    return Finetuned(
        config,
        vocabulary,
        params,
        bert.constants(config, vocabulary),
        step,
        task,
        labels,
        reads_pairs,
        settings.take("max_length", int),
        saved["lowercase"],
    )


def _saved_config(saved: dict[str, Any]) -> BertConfig:
    """Return the configuration of a saved identity, without dropout and in float32."""
    fields = {**saved["model"], "hash": HashSpec.from_dict(saved["model"]["hash"] or {})}
    return BertConfig(**fields, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)


def _restore(checkpoints: Checkpoints, model: nn.Module, meant: dict[str, Any]) -> Any:
    """Return the newest parameters of `model` on the first local device."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    like = jax.eval_shape(model.init, key, jax.ShapeDtypeStruct((1, 1), jnp.int32))["params"]
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), like)
    return checkpoints.restore_params(like, meant)
