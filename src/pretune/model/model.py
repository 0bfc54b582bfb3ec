"""What ``pretune.load`` returns: a network with its tokenizer and its task, ready to use."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from pydantic import InstanceOf
from torch import nn

from pretune.arguments import Count, FilePath, Seed, check_arguments
from pretune.checkpoint import hub, weights
from pretune.config import Settings, build, digest
from pretune.data.cleaning.fingerprints import Fingerprints
from pretune.errors import CheckpointError, UnsupportedError, UsageError, quote
from pretune.generation.config import FILE, Defaults
from pretune.generation.generator import Decoder
from pretune.generation.sampling import Sampling
from pretune.generation.sampling_loop import Continuation
from pretune.generation.settings import Decoding, decoding_of
from pretune.inference import heads as prediction
from pretune.inference.fill_mask import Filled, Masks, fill
from pretune.inference.scoring import TextScore, score_causal, score_masked
from pretune.model.build import check_memory, check_sizes, distinct, random_network, start_of
from pretune.model.capabilities import BOTH_WAYS, FILLS, check_head, no_score, no_task
from pretune.model.folder import ABOUT, save_as
from pretune.model.loading import load
from pretune.model.nonfinite import naming
from pretune.registry import find
from pretune.runtime import atomic_files
from pretune.text.tokenizer import Tokenizer
from pretune.types import Prediction, Record, Traits


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
        dropped: str = "",
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
        self.dropped = dropped
        """Of what head of the folder the weights were left out; empty where of none."""
        self.defaults = defaults or Defaults.of(tokenizer.specials, start_of(family, tokenizer))
        """How it is decoded where nothing else is asked for."""
        self._unused = self.defaults.unused

    # -- making one -----------------------------------------------------------------------------

    @classmethod
    @check_arguments
    def create(
        cls,
        family: str,
        settings: Mapping[str, Any],
        tokenizer: Tokenizer,
        head: str,
        *,
        max_length: Count,
        seed: Seed,
        labels: Sequence[str] = (),
    ) -> Model:
        """A model with random weights, the same for the same seed.

        Raises:
            ConfigError: ``settings`` holds a key that the family does not know, or sizes that fit neither
                the tokenizer, nor ``max_length``, nor this machine.
            UnsupportedError: the family has no such head.
        """
        module, labels = find("families", family), distinct(labels)
        traits: Traits = module.TRAITS
        if not any(head in heads for heads in module.HF_TYPES.values()):
            raise UnsupportedError(
                f"family {family!r} has no {head!r} head; it has {', '.join(traits.heads)}"
            )
        sizes = {"vocab_size": tokenizer.vocabulary_size, "max_position_embeddings": max_length}
        sizes |= {"pad_token_id": tokenizer.specials.pad}
        known = {name: size for name, size in sizes.items() if name in module.Config.model_fields}
        config = build(module.Config, known | dict(settings), where="model")
        check_sizes(config, tokenizer, max_length)
        check_memory(module, config, head, labels)
        network = random_network(module, config, head, labels, seed)
        return cls(module, config, network, tokenizer, head, labels=labels, about={"max_length": max_length})

    @classmethod
    @check_arguments
    def load(
        cls,
        path: FilePath,
        *,
        head: str | None = None,
        labels: Sequence[str] | None = None,
        settings: Mapping[str, Any] | None = None,
        seed: Seed = 0,
    ) -> Model:
        """Read a model folder: one of ours, or any Hugging Face folder of a family that pretune has.

        With ``head`` (and ``labels``) another head than the folder's is put on; what the folder has no
        weights for is initialised from ``seed``, and ``untrained`` names it. ``settings`` replace those of
        the folder's config that change no shape, such as dropout.

        Raises:
            CheckpointError: no model there, or a damaged or unsafe one.
            UnsupportedError: an architecture or head that pretune does not have.
        """
        found = load(Path(path), head, labels, settings or {}, seed)
        return cls(
            found.family, found.config, found.network, found.tokenizer, found.head, labels=found.labels,
            about=found.about, fingerprints=found.fingerprints, path=found.path, untrained=found.untrained,
            defaults=found.defaults, dropped=found.dropped,
        )  # fmt: skip

    @check_arguments
    def with_random_weights(self, seed: Seed) -> Model:
        """The same architecture, tokenizer and head, knowing nothing: the control of an experiment."""
        head = "+".join(self.heads)
        network = random_network(self.family, self.config, head, self.labels, seed)
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
        atomic_files.write_json(folder / ABOUT, {"head": head, **self.about})
        if self.head == "causal_lm":
            self.defaults.write(folder, self.tokenizer.specials)
        if self.fingerprints is not None:
            self.fingerprints.save(folder)

    @check_arguments
    def save(self, path: FilePath, *, overwrite: bool = False) -> Path:
        """Save as a folder that stock ``transformers`` loads with the same outputs: see `save_as`."""
        self.path = save_as(Path(path), self.write, overwrite=overwrite)
        return self.path

    @check_arguments
    def restore(self, folder: Path) -> None:
        """Put the weights of a folder that :meth:`write` wrote into this model's network."""
        missing = weights.load_into(self.network, hub.read_tensors(folder), self.family.WEIGHTS)
        if missing:
            raise CheckpointError(f"{folder}: has no weights for {', '.join(missing[:5])}")

    # -- using it -------------------------------------------------------------------------------

    @check_arguments
    def __call__(self, text: str, text_pair: str | None = None) -> Any:
        """What the head does: fill the masks, classify, or continue the text."""
        if self.task_name is not None:
            return self.classify([text], None if text_pair is None else [text_pair])[0]
        if text_pair is not None:
            raise UsageError(f"text_pair = {quote(text_pair)}: a language model reads one text; leave it out")
        if self.head in FILLS:
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
            raise no_task(self.path, self.head)
        return find("tasks", self.task_name)

    def task(self, options: Settings | None = None) -> Any:
        """The task in this model's terms; as it was trained, unless ``options`` are given."""
        kind = self.task_module
        self.needs(kind.HEAD)
        kept = options or build(kind.Options, self.about.get("task_options") or {}, where=ABOUT)
        return kind.Task(self.labels, self.tokenizer.specials, self.max_length, kept)

    @check_arguments
    def predict(
        self,
        records: Sequence[Record],
        options: InstanceOf[Settings] | None = None,
        *,
        batch_size: Count | None = None,
    ) -> list[Prediction]:
        """One prediction a record; ``batch_size`` is the most rows at once, None as many as fit the cache."""
        kind = find("objectives", self.task_module.OBJECTIVE)
        objective = kind.Objective(self.family.TRAITS, self.tokenizer.specials)
        with naming(self.path, self.network):
            return prediction.predict(
                self.network, self.task(options), objective, self.tokenizer, records, batch_size=batch_size,
                capacity=self.max_length if self.family.TRAITS.packing else None,
            )  # fmt: skip

    @check_arguments
    def classify(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[Prediction]:
        """The class, or the labels, of each text, or of each pair."""
        if pairs is not None and len(pairs) != len(texts):
            raise UsageError(f"{len(texts)} texts and {len(pairs)} second texts do not pair up")
        columns = [{"text": text} for text in texts]
        if pairs is not None:
            columns = [{**row, "text_pair": pair} for row, pair in zip(columns, pairs, strict=True)]
        return self.predict([Record(row, "text", number) for number, row in enumerate(columns, 1)])

    @check_arguments
    def fill(
        self,
        text: str,
        top_k: Count | None = None,
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
        self.needs(*FILLS)
        masks = Masks(self.network, self.tokenizer, self.max_length, self.head)
        with naming(self.path, self.network):
            return fill(masks, text, top_k, targets=targets, joint=joint, whole_words=whole_words)

    @check_arguments
    def generate(
        self,
        prompt: str,
        *,
        max_new_tokens: int | None = None,
        min_new_tokens: int | None = None,
        stop: Sequence[str] | None = None,
        sampling: Sampling | None = None,
        num_beams: int | None = None,
        seed: Seed = 0,
        literal: bool = False,
        chat: bool = False,
    ) -> str:
        """Continue ``prompt``; the continuation alone is returned, and ends where the model ends the text.

        The names of special tokens in ``prompt`` are these tokens, unless it is ``literal``. With ``chat``
        the prompt is put into the model's chat template, as what a user says. An encoder-decoder reads
        ``prompt`` as its source, and writes what it was trained to make of it.
        What is left out is decided by the model: by its generation_config.json, or by the defaults of
        `Decoding` (50 new tokens) and ``Sampling()``.
        """
        values = {
            "max_new_tokens": max_new_tokens, "min_new_tokens": min_new_tokens, "stop": stop,
            "sampling": sampling, "num_beams": num_beams, "seed": seed, "literal": literal, "chat": chat,
        }  # fmt: skip
        return self.generate_all([prompt], decoding_of(values))[0][0].text

    @check_arguments
    def stream(
        self,
        prompt: str,
        *,
        max_new_tokens: int | None = None,
        min_new_tokens: int | None = None,
        stop: Sequence[str] | None = None,
        sampling: Sampling | None = None,
        seed: Seed = 0,
        literal: bool = False,
        chat: bool = False,
    ) -> Iterator[str]:
        """The text of :meth:`generate` piece by piece, as soon as its characters are whole."""
        values = {
            "max_new_tokens": max_new_tokens, "min_new_tokens": min_new_tokens, "stop": stop,
            "sampling": sampling, "seed": seed, "literal": literal, "chat": chat,
        }  # fmt: skip
        return self.stream_with(prompt, decoding_of(values))

    @check_arguments
    def stream_with(self, prompt: str, decoding: InstanceOf[Decoding]) -> Iterator[str]:
        """:meth:`stream` with all that ``decoding`` says, but for several texts and beams.

        Raises:
            UsageError: ``decoding`` asks for these.
        """
        if decoding.num_beams > 1 or decoding.num_return_sequences > 1:
            raise UsageError("a stream is one text; leave out num_beams and num_return_sequences")
        pieces = self._decoder().stream(prompt, decoding)

        def named() -> Iterator[str]:
            with naming(self.path, self.network):
                yield from pieces

        return named()

    @check_arguments
    def generate_all(
        self, prompts: Sequence[str], decoding: InstanceOf[Decoding] | None = None
    ) -> list[list[Continuation]]:
        """Continue each prompt ``decoding.num_return_sequences`` times, several prompts at once."""
        decoder = self._decoder()
        with naming(self.path, self.network):
            return decoder.all(prompts, decoding or Decoding())

    @check_arguments
    def score(self, text: str, *, stride: int | None = None, within_word: bool = False) -> TextScore:
        """How probable the model finds a text, a token at a time; see `inference.scoring`.

        A causal model gives the log-probability, a masked one the pseudo-log-likelihood.

        Args:
            stride: of a text longer than the model reads: how many tokens a window scores; the others that it
                reads are their context. Default: half of what the model reads.
            within_word: of a masked model: a token is scored without the later ones of its word.
        """
        return self.score_all([text], stride=stride, within_word=within_word)[0]

    @check_arguments
    def score_all(
        self, texts: Sequence[str], *, stride: int | None = None, within_word: bool = False
    ) -> list[TextScore]:
        """:meth:`score` of each text, several at once."""
        self.needs("causal_lm", *FILLS)
        if self.family.TRAITS.kind == "encoder-decoder":
            raise no_score(self.path)
        scorer = partial(score_masked, head=self.head) if self.head in FILLS else score_causal
        with naming(self.path, self.network):
            return scorer(
                self.network, self.tokenizer, texts, max_length=self.max_length, stride=stride,
                within_word=within_word,
            )  # fmt: skip

    def unused_settings(self) -> str:
        """What its generation_config.json asks for and pretune does not do, once; empty when it was asked."""
        unused, self._unused = self._unused, ()
        return f"not done as its {FILE} asks: {', '.join(unused)}" if unused else ""

    def _decoder(self) -> Decoder:
        self.needs("causal_lm")
        unused = self.unused_settings()
        if unused:
            warnings.warn(f"{self.path or 'this model'}: {unused}", UserWarning, stacklevel=4)
        limit = int(self.config.max_position_embeddings)
        learnt = self.about.get("objective")
        return Decoder(self.network, self.tokenizer, self.defaults, limit, both_ways=learnt in BOTH_WAYS)

    def needs(self, *heads: str) -> None:
        """See that the model has a trained head of one of these kinds.

        Raises:
            UsageError: it has another, or one that the folder had no weights for.
        """
        check_head(self.path, self.head, heads, self.untrained)
