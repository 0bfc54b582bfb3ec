"""What ``pretune.load`` returns: a network with its tokenizer and its task, ready to use."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from pretune.checkpoint import hub, store, weights
from pretune.config import Settings, build, digest
from pretune.data.fingerprints import FILE as FINGERPRINTS
from pretune.data.fingerprints import Fingerprints
from pretune.errors import CheckpointError, ConfigError, UnsupportedError, UsageError
from pretune.families import family_of
from pretune.generation.decode import Continuation, Decoding
from pretune.generation.decoder import Decoder
from pretune.generation.defaults import Defaults
from pretune.generation.sampling import Sampling
from pretune.nn.initialisation import shapes_only
from pretune.prediction import heads as prediction
from pretune.prediction.fill import Filled, Masks, fill
from pretune.prediction.score import TextScore, score_causal, score_masked
from pretune.registry import find, names
from pretune.text.tokenizer import Tokenizer
from pretune.training import machine
from pretune.types import Prediction, Record, Traits

ABOUT = "pretune.json"
"""What pretune knows of a model beyond Hugging Face's config.json."""


class Model:
    """A network, its tokenizer, and the head that it is used through.

    ``head`` may name several that were trained together, joined by ``+``; it is used through the first.
    """

    def __init__(
        self,
        family: ModuleType,
        config: Any,
        network: nn.Module,
        tokenizer: Tokenizer,
        head: str,
        *,
        labels: tuple[str, ...] = (),
        about: Mapping[str, Any] | None = None,
        fingerprints: Fingerprints | None = None,
        path: Path | None = None,
        untrained: tuple[str, ...] = (),
        defaults: Defaults | None = None,
    ) -> None:
        self.family, self.config, self.network = family, config, network
        self.tokenizer, self.heads, self.labels = tokenizer, tuple(head.split("+")), labels
        self.about = dict(about or {})
        self.fingerprints = fingerprints
        """Of the text that it was pretrained on, where that is known."""
        self.path = path
        """The folder that it was loaded from or saved to."""
        self.untrained = untrained
        """Parameters of the head that the folder had no weights for: it must be trained before use."""
        self.defaults = defaults or Defaults.of(tokenizer.specials)
        """How it is decoded where nothing else is asked for."""

    # -- making one -----------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        family: str,
        settings: Mapping[str, Any],
        tokenizer: Tokenizer,
        head: str,
        *,
        max_length: int,
        seed: int,
        labels: tuple[str, ...] = (),
    ) -> Model:
        """A model with random weights, the same for the same seed.

        Raises:
            ConfigError: ``settings`` holds a key that the family does not know, or sizes that fit neither
                the tokenizer, nor ``max_length``, nor this machine.
            UnsupportedError: the family has no such head.
        """
        module = find("families", family)
        traits: Traits = module.TRAITS
        if not any(head in heads for heads in module.HF_TYPES.values()):
            raise UnsupportedError(
                f"family {family!r} has no {head!r} head; it has {', '.join(traits.heads)}"
            )
        values = {"vocab_size": tokenizer.vocabulary_size, "max_position_embeddings": max_length} | dict(
            settings
        )
        config = build(module.Config, values, where="model")
        _check_sizes(config, tokenizer, max_length)
        _check_memory(module, config, head, labels)
        network = _network(module, config, head, labels, seed)
        return cls(module, config, network, tokenizer, head, labels=labels, about={"max_length": max_length})

    @classmethod
    def load(
        cls,
        path: Path | str,
        *,
        head: str | None = None,
        labels: tuple[str, ...] | None = None,
        settings: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> Model:
        """Read a model folder: one of ours, or any Hugging Face folder of a family that pretune has.

        With ``head`` (and ``labels``) another head than the folder's is put on; what the folder has no
        weights for is initialised from ``seed``, and ``untrained`` names it. ``settings`` replace those of
        the folder's config that change no shape, such as dropout.

        Raises:
            CheckpointError: no model there, or a damaged or unsafe one.
            UnsupportedError: an architecture or head that pretune does not have.
        """
        folder = model_folder(Path(path))
        _verify(folder)
        config_json = hub.read_config(folder)
        module, config = _read_config(folder, config_json)
        config = build(module.Config, config.model_dump() | dict(settings or {}), where="model")
        own, own_labels = _own_head(module, config_json), _own_labels(folder, config_json)
        wanted = head or own or next(h for h in module.TRAITS.heads if h != "classification")
        chosen = (own_labels if labels is None else labels) if wanted == "classification" else ()
        about = _read_about(folder, config)
        kept = about.pop("task", None)
        task = kept if kept and own == wanted else _task_of(wanted, config_json)
        about |= {} if task is None else {"task": task}
        tokenizer = Tokenizer.load(folder)
        if tokenizer.vocabulary_size > config.vocab_size:
            raise CheckpointError(
                f"{folder}: its tokenizer has {tokenizer.vocabulary_size:,} tokens, its network only "
                f"{config.vocab_size:,} (vocab_size in config.json): they do not belong together"
            )
        tensors = hub.read_tensors(folder)
        if own == wanted and chosen != own_labels:  # its classes mean nothing here
            tensors = {k: v for k, v in tensors.items() if k.split(".")[0] not in ("classifier", "score")}
        _check_fit(folder, module, config, wanted, chosen, tensors)
        network = _network(module, config, wanted, chosen, seed)
        missing = weights.load_into(network, tensors, module.WEIGHTS)
        if missing and own == wanted and chosen == own_labels:
            raise CheckpointError(f"{folder}: has no weights for {', '.join(missing[:5])}")
        return cls(
            module, config, network.eval(), tokenizer, wanted, labels=chosen, about=about,
            fingerprints=Fingerprints.load(folder), path=folder, untrained=tuple(missing),
            defaults=Defaults.load(folder, config_json, tokenizer.specials),
        )  # fmt: skip

    def with_random_weights(self, seed: int) -> Model:
        """The same architecture, tokenizer and head, knowing nothing: the control of an experiment."""
        head = "+".join(self.heads)
        network = _network(self.family, self.config, head, self.labels, seed)
        return Model(
            self.family, self.config, network, self.tokenizer, head, labels=self.labels, about=self.about
        )

    # -- what it is -----------------------------------------------------------------------------

    @property
    def head(self) -> str:
        """The head that it is used through."""
        return self.heads[0]

    @property
    def max_length(self) -> int:
        """Tokens that it reads at once, special ones included."""
        return int(self.about.get("max_length") or self.config.max_position_embeddings)

    @property
    def parameters(self) -> int:
        """Number of weights, shared ones counted once."""
        return sum(p.numel() for p in self.network.parameters())

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of all that decides what it says: weights, tokenizer, labels, settings."""
        content = hashlib.sha256(self.tokenizer.fingerprint.encode())
        content.update(digest([self.head, self.labels, self.about, self.config.model_dump()]).encode())
        for name, tensor in sorted(self.network.state_dict().items()):
            content.update(name.encode())
            content.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
        return content.hexdigest()

    # -- keeping it -----------------------------------------------------------------------------

    def write(self, folder: Path) -> None:
        """Put the model's files, in Hugging Face layout, into an existing folder."""
        head, specials = "+".join(self.heads), self.tokenizer.specials
        config = self.config.to_hugging_face(head, labels=self.labels, specials=specials)
        if self.task_name is not None:
            config |= {"problem_type": self.task_module.PROBLEM_TYPE}
        hub.write_model(folder, config, weights.export(self.network, self.family.WEIGHTS))
        self.tokenizer.save(folder, model_max_length=self.max_length)
        store.write_json(folder / ABOUT, {"head": head, **self.about})
        if self.head == "causal_lm":
            self.defaults.write(folder, self.tokenizer.specials)
        if self.fingerprints is not None:
            self.fingerprints.save(folder)

    def save(self, path: Path | str) -> Path:
        """Save as a folder that stock ``transformers`` loads with the same outputs; whole or not at all."""
        self.path = Path(path)
        store.write_folder(self.path, self.write, about={"kind": "model"})
        return self.path

    def restore(self, folder: Path) -> None:
        """Put the weights of a folder that :meth:`write` wrote into this model's network."""
        missing = weights.load_into(self.network, hub.read_tensors(folder), self.family.WEIGHTS)
        if missing:
            raise CheckpointError(f"{folder}: has no weights for {', '.join(missing[:5])}")

    # -- using it -------------------------------------------------------------------------------

    def __call__(self, text: str, text_pair: str | None = None) -> Any:
        """What the head does: fill the masks, classify, or continue the text."""
        if self.task_name is not None:
            return self.classify([text], None if text_pair is None else [text_pair])[0]
        if self.head == "masked_lm":
            return self.fill(text)
        return self.generate(text)

    @property
    def task_name(self) -> str | None:
        """The task that it was fine-tuned for; None for a language model."""
        name = self.about.get("task")
        return None if name is None else str(name)

    @property
    def task_module(self) -> ModuleType:
        """The module of its task.

        Raises:
            UsageError: it was fine-tuned for none.
        """
        if self.task_name is None:
            raise UsageError(
                f"this model has a {self.head!r} head, but no task that pretune has; fine-tune it on one, "
                "such as classification"
            )
        return find("tasks", self.task_name)

    def task(self, options: Settings | None = None) -> Any:
        """The task in this model's terms; as it was trained, unless ``options`` are given."""
        kind = self.task_module
        self.needs(kind.HEAD)
        kept = options or build(kind.Options, self.about.get("task_options") or {}, where=ABOUT)
        return kind.Task(self.labels, self.tokenizer.specials, self.max_length, kept)

    def predict(
        self, records: Sequence[Record], options: Settings | None = None, *, batch_size: int | None = None
    ) -> list[Prediction]:
        """One prediction a record; ``batch_size`` is the most rows at once, None as many as fit the cache."""
        task = self.task(options)
        kind = find("objectives", self.task_module.OBJECTIVE)
        objective = kind.Objective(self.family.TRAITS, self.tokenizer.specials)
        return prediction.predict(
            self.network, task, objective, self.tokenizer, records, batch_size=batch_size
        )

    def classify(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[Prediction]:
        """The class, or the labels, of each text, or of each pair."""
        if pairs is not None and len(pairs) != len(texts):
            raise UsageError(f"{len(texts)} texts and {len(pairs)} second texts do not pair up")
        columns = [{"text": text} for text in texts]
        if pairs is not None:
            columns = [{**row, "text_pair": pair} for row, pair in zip(columns, pairs, strict=True)]
        return self.predict([Record(row, "text", number) for number, row in enumerate(columns, 1)])

    def fill(
        self,
        text: str,
        top_k: int | None = None,
        *,
        targets: Sequence[str] = (),
        joint: bool = False,
        whole_words: bool = False,
    ) -> list[list[Filled]]:
        """For each mask token in ``text``, the likeliest tokens, best first.

        Args:
            top_k: how many; default 5, or all ``targets``.
            targets: what may stand there and nothing else; a word of several tokens is welcome.
            joint: all masks together, left to right, by a beam: guess i of each mask belongs to filling i,
                whose probability it carries.
            whole_words: words of several tokens, too, compared by their probability a token.
        """
        self.needs("masked_lm")
        masks = Masks(self.network, self.tokenizer, self.max_length)
        return fill(masks, text, top_k, targets=targets, joint=joint, whole_words=whole_words)

    def generate(
        self,
        prompt: str,
        *,
        max_new_tokens: int = 50,
        min_new_tokens: int = 0,
        stop: Sequence[str] = (),
        sampling: Sampling | None = None,
        num_beams: int = 1,
        seed: int = 0,
    ) -> str:
        """Continue ``prompt``; the continuation alone is returned, and ends where the model ends the text.

        Without ``sampling`` the model's own is taken: its generation_config.json, or ``Sampling()``.
        """
        values = {
            "max_new_tokens": max_new_tokens, "min_new_tokens": min_new_tokens, "stop": tuple(stop),
            "sampling": sampling, "num_beams": num_beams, "seed": seed,
        }  # fmt: skip
        return self.generate_all([prompt], build(Decoding, values, where="generate"))[0][0].text

    def stream(
        self,
        prompt: str,
        *,
        max_new_tokens: int = 50,
        min_new_tokens: int = 0,
        stop: Sequence[str] = (),
        sampling: Sampling | None = None,
        seed: int = 0,
    ) -> Iterator[str]:
        """The text of :meth:`generate` piece by piece, as soon as its characters are whole."""
        values = {
            "max_new_tokens": max_new_tokens, "min_new_tokens": min_new_tokens, "stop": tuple(stop),
            "sampling": sampling, "seed": seed,
        }  # fmt: skip
        return self.stream_with(prompt, build(Decoding, values, where="stream"))

    def stream_with(self, prompt: str, decoding: Decoding) -> Iterator[str]:
        """:meth:`stream` with all that ``decoding`` says, but for several texts and beams.

        Raises:
            UsageError: ``decoding`` asks for these.
        """
        if decoding.num_beams > 1 or decoding.num_return_sequences > 1:
            raise UsageError("a stream is one text; leave out num_beams and num_return_sequences")
        pieces = self._decoder().write([prompt], decoding)
        return (new for _, new, _ in pieces if new)

    def generate_all(
        self, prompts: Sequence[str], decoding: Decoding | None = None
    ) -> list[list[Continuation]]:
        """Continue each prompt ``decoding.num_return_sequences`` times, several prompts at once."""
        return self._decoder().all(prompts, decoding or Decoding())

    def score(self, text: str, *, stride: int | None = None, within_word: bool = False) -> TextScore:
        """How probable the model finds a text, a token at a time; see `prediction.score`.

        A causal model gives the log-probability, a masked one the pseudo-log-likelihood.

        Args:
            stride: of a text longer than the model reads: how many tokens a window scores; the others that it
                reads are their context. Default: half of what the model reads.
            within_word: of a masked model: a token is scored without the later ones of its word.
        """
        return self.score_all([text], stride=stride, within_word=within_word)[0]

    def score_all(
        self, texts: Sequence[str], *, stride: int | None = None, within_word: bool = False
    ) -> list[TextScore]:
        """:meth:`score` of each text, several at once."""
        scorers = {"causal_lm": score_causal, "masked_lm": score_masked}
        if self.head not in scorers:
            raise UsageError(f"this model has a {self.head!r} head; a score needs {' or '.join(scorers)}")
        self.needs(self.head)
        return scorers[self.head](
            self.network,
            self.tokenizer,
            texts,
            max_length=self.max_length,
            stride=stride,
            within_word=within_word,
        )

    def _decoder(self) -> Decoder:
        self.needs("causal_lm")
        limit = int(self.config.max_position_embeddings)
        return Decoder(self.network, self.tokenizer, self.defaults, limit)

    def needs(self, head: str) -> None:
        """See that the model has a trained head of this kind.

        Raises:
            UsageError: it has another, or one that the folder had no weights for.
        """
        if self.untrained and self.path is not None and self.head != "classification":
            raise UsageError(
                f"{self.path}: has no weights of a {self.head!r} head, so it can only be fine-tuned: "
                f"pretune finetune {self.path} --train ..."
            )
        if self.head != head:
            raise UsageError(f"this model has a {self.head!r} head; that needs a {head!r} one")


@dataclass(frozen=True, slots=True)
class Outline:
    """What a model folder says of itself, before any weight is read."""

    folder: Path
    family: str
    config: Any
    head: str | None
    """None: the folder holds a body without a head."""
    max_length: int


def outline(path: Path | str) -> Outline:
    """The outline of a model folder or of a run.

    Raises:
        CheckpointError: no model there, or a damaged one.
        UnsupportedError: an architecture that pretune does not have.
    """
    folder = model_folder(Path(path))
    values = hub.read_config(folder)
    module, config = _read_config(folder, values)
    longest = int(_read_about(folder, config).get("max_length") or config.max_position_embeddings)
    name = module.__name__.rpartition(".")[2]
    return Outline(folder, name, config, _own_head(module, values), longest)


def model_folder(path: Path) -> Path:
    """The model folder that a path means: itself, or ``model/`` inside a run.

    Raises:
        CheckpointError: there is none.
    """
    for folder in (path, path / "model"):
        if (folder / "config.json").exists():
            return folder
    if not path.exists():
        raise CheckpointError(
            f"{path}: no such file or folder; give a run or a model folder (pretune fetches none from a hub)"
        )
    if path.is_file():
        raise CheckpointError(
            f"{path}: is a file; give the folder with config.json and model.safetensors in it"
        )
    if (path / "config.yaml").exists():
        raise CheckpointError(f"{path}: this run has no finished model yet; run its command again to go on")
    raise CheckpointError(f"{path}: holds no model (no config.json)")


def _read_config(folder: Path, values: Mapping[str, Any]) -> tuple[ModuleType, Any]:
    """The family that reads a folder, and its config."""
    try:
        module = family_of(str(values.get("model_type")))
        return module, module.Config.from_hugging_face(values)
    except ConfigError as error:
        raise CheckpointError(f"{folder}: {error}") from None
    except UnsupportedError as error:
        raise UnsupportedError(f"{folder}: {error}") from None


def _network(family: ModuleType, config: Any, head: str, labels: Sequence[str], seed: int) -> nn.Module:
    """A network with random weights that depend on the seed alone, and leave torch's generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: nn.Module = family.Network(config, heads=head.split("+"), num_labels=len(labels))
    return network


def _sketch(family: ModuleType, config: Any, head: str, labels: Sequence[str]) -> nn.Module:
    """A network without values, which takes no memory: its shapes can be judged before it is made.

    Raises:
        ConfigError: sizes that no tensor can have.
    """
    try:
        with shapes_only():
            network: nn.Module = family.Network(config, heads=head.split("+"), num_labels=len(labels))
    except (RuntimeError, OverflowError, TypeError) as error:  # what torch says of them
        raise ConfigError(f"model: sizes that no tensor can have: {str(error).splitlines()[0]}") from None
    return network


def _check_sizes(config: Any, tokenizer: Tokenizer, max_length: int) -> None:
    if config.vocab_size < tokenizer.vocabulary_size:
        raise ConfigError(
            f"model: vocab_size = {config.vocab_size}: the tokenizer has {tokenizer.vocabulary_size} tokens; "
            "leave vocab_size out, or give that or more"
        )
    if config.max_position_embeddings < max_length:
        raise ConfigError(
            f"model: max_position_embeddings = {config.max_position_embeddings}: max_length is {max_length}; "
            "leave max_position_embeddings out, or give that or more"
        )


def _check_memory(family: ModuleType, config: Any, head: str, labels: Sequence[str]) -> None:
    count = sum(p.numel() for p in _sketch(family, config, head, labels).parameters())
    needed, there = 16 * count, machine.memory()  # weights, gradients, AdamW's two moments, in fp32
    if there and needed > there:
        raise ConfigError(
            f"model: {count:,} parameters take {needed / 2**30:,.0f} GiB to train, this machine has "
            f"{there / 2**30:,.0f}; give a smaller hidden_size, num_hidden_layers or vocabulary"
        )


def _check_fit(
    folder: Path,
    family: ModuleType,
    config: Any,
    head: str,
    labels: Sequence[str],
    tensors: Mapping[str, torch.Tensor],
) -> None:
    """The sizes in config.json are those of the weights, which are bounded by their file."""
    if config.num_hidden_layers > len(tensors):
        raise CheckpointError(
            f"{folder}: config.json says num_hidden_layers = {config.num_hidden_layers}, "
            f"the weights are only {len(tensors)} tensors"
        )
    try:
        weights.load_into(_sketch(family, config, head, labels), dict(tensors), family.WEIGHTS)
    except (CheckpointError, ConfigError) as error:
        raise CheckpointError(f"{folder}: {error}") from None


def _verify(folder: Path) -> None:
    """Compare a folder of ours with its manifest: safetensors alone does not notice a flipped bit."""
    if not ((folder / ABOUT).exists() and (folder / store.MANIFEST).exists()):
        return  # another program's, or written without a manifest
    try:
        # The card may be edited, and the fingerprints of a private text may be taken out.
        removed = () if (folder / FINGERPRINTS).exists() else (FINGERPRINTS,)
        store.verify_folder(folder, but=("README.md", *removed))
    except CheckpointError as error:
        raise CheckpointError(
            f"{error}; save or copy the model again, or, where the change is yours, remove {store.MANIFEST}"
        ) from None


def _own_head(family: ModuleType, config: Mapping[str, Any]) -> str | None:
    architectures = config.get("architectures")
    if not isinstance(architectures, list):
        return None
    for heads in family.HF_TYPES.values():
        for head, name in heads.items():
            if name in architectures[:1]:
                return str(head)
    return None


def _task_of(head: str, config: Mapping[str, Any]) -> str | None:
    """The task that a folder's head and ``problem_type`` mean; stock takes one label for a regression."""
    labels = config.get("id2label")
    assumed = "regression" if labels is not None and len(labels) == 1 else "single_label_classification"
    problem = config.get("problem_type") or assumed
    for name in names("tasks"):
        kind = find("tasks", name)
        if head == kind.HEAD and kind.PROBLEM_TYPE in (None, problem):
            return name
    return None


def _own_labels(folder: Path, config: Mapping[str, Any]) -> tuple[str, ...]:
    try:
        labels = {int(number): str(label) for number, label in (config.get("id2label") or {}).items()}
    except (AttributeError, ValueError):
        labels = {-1: ""}
    if sorted(labels) != list(range(len(labels))):
        raise CheckpointError(f"{folder}: config.json: id2label must map 0, 1, 2 ... to labels")
    return tuple(labels[number] for number in range(len(labels)))


def _read_about(folder: Path, config: Any) -> dict[str, Any]:
    path = folder / ABOUT
    if not path.exists():
        return {}
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged: {error}") from None
    if not isinstance(about, dict):
        raise CheckpointError(f"{path}: damaged: expected an object")
    length, most = about.get("max_length"), config.max_position_embeddings
    if length is not None and not (isinstance(length, int) and 1 <= length <= most):
        raise CheckpointError(f"{path}: max_length = {length!r}: must be a number from 1 to {most}")
    return about
