"""What ``pretune.load`` returns: a network with its tokenizer and its task, ready to use."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from pydantic import InstanceOf
from torch import nn

from pretune.arguments import FilePath, PositiveInt, Seed, check_arguments
from pretune.checkpoint import hub, weights
from pretune.config import Settings, build_settings, digest
from pretune.data.cleaning.fingerprints import Fingerprints
from pretune.errors import CheckpointError, DataError, UnsupportedError, UsageError, quote
from pretune.families import weight_operations
from pretune.generation.config import FILE_NAME, GenerationConfig
from pretune.generation.generator import TextGenerator
from pretune.generation.sampling import Sampling
from pretune.generation.sampling_loop import Continuation
from pretune.generation.settings import Decoding, build_decoding
from pretune.inference import heads as prediction
from pretune.inference.fill_mask import MaskFiller, MaskPrediction, fill_masks
from pretune.inference.scoring import TextScore, score_causal, score_masked
from pretune.model.build import check_memory, check_sizes, find_decoder_start_id, head_outputs, init_network
from pretune.model.capabilities import (
    PREFIX_OBJECTIVES,
    HeadUse,
    check_head,
    check_trained,
    check_use,
    head_use,
    no_score_error,
    no_task_error,
)
from pretune.model.folder import METADATA_FILE, save_model_folder
from pretune.model.loading import load_folder
from pretune.model.nonfinite import explain_non_finite
from pretune.nn.heads import combined_names
from pretune.registry import find
from pretune.runtime import atomic_files
from pretune.runtime.device import network_device
from pretune.tasks import find_task
from pretune.tasks.base import Reader, Task
from pretune.text.tokenizer import Tokenizer
from pretune.types import Feature, OutputSpec, Prediction, Record, Traits


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
        outputs: OutputSpec | None = None,
        metadata: Mapping[str, Any] | None = None,
        fingerprints: Fingerprints | None = None,
        path: Path | None = None,
        untrained: tuple[str, ...] = (),
        generation_config: GenerationConfig | None = None,
        dropped_head: str = "",
    ) -> None:
        self.family, self.config, self.network = family, config, network
        self.tokenizer, self.heads = tokenizer, tuple(head.split("+"))
        self.outputs = outputs or OutputSpec()
        """What the outputs of a fine-tuned head mean."""
        self.metadata = dict(metadata or {})
        self.fingerprints = fingerprints
        """Of the text that it was pretrained on, where that is known."""
        self.path = path
        """The folder that it was loaded from or saved to."""
        self.untrained = untrained
        """Parameters of the head that the folder had no weights for: it must be trained before use."""
        self.dropped_head = dropped_head
        """Of what head of the folder the weights were left out; empty where of none."""
        self.generation_config = generation_config or GenerationConfig.from_specials(
            tokenizer.specials, find_decoder_start_id(family, tokenizer)
        )
        """How it is decoded where nothing else is asked for."""
        self._unused_settings = self.generation_config.unsupported

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
        max_length: PositiveInt,
        seed: Seed,
        labels: Sequence[str] = (),
        outputs: InstanceOf[OutputSpec] | None = None,
    ) -> Model:
        """A model with random weights, the same for the same seed.

        Args:
            outputs: of a fine-tuned head, where there is more to say than its ``labels``.

        Raises:
            ConfigError: ``settings`` holds a key that the family does not know, or sizes that fit neither
                the tokenizer, nor ``max_length``, nor this machine.
            UnsupportedError: the family has no such head.
        """
        module = find("families", family)
        if head not in combined_names(module.HEADS):
            raise UnsupportedError(
                f"family {family!r} has no {head!r} head; it has {', '.join(module.HEADS)}"
            )
        outputs = head_outputs(module.HEADS, head, outputs or OutputSpec(tuple(labels)))
        sizes = {"vocab_size": tokenizer.vocabulary_size, "max_position_embeddings": max_length}
        sizes |= {"pad_token_id": tokenizer.specials.pad_id}
        known = {name: size for name, size in sizes.items() if name in module.Config.model_fields}
        config = build_settings(module.Config, known | dict(settings), where="model")
        check_sizes(config, tokenizer, max_length)
        check_memory(module, config, head, outputs)
        network = init_network(module, config, head, outputs, seed)
        return cls(
            module, config, network, tokenizer, head, outputs=outputs, metadata={"max_length": max_length}
        )

    @classmethod
    @check_arguments
    def load(
        cls,
        path: FilePath,
        *,
        head: str | None = None,
        labels: Sequence[str] | None = None,
        outputs: InstanceOf[OutputSpec] | None = None,
        settings: Mapping[str, Any] | None = None,
        seed: Seed = 0,
    ) -> Model:
        """Read a model folder: one of ours, or any Hugging Face folder of a family that pretune has.

        With ``head`` (and ``labels``, or ``outputs`` where there is more to say) another head than the
        folder's is put on; what the folder has no weights for is initialised from ``seed``, and ``untrained``
        names it. ``settings`` replace those of
        the folder's config that change no shape, such as dropout.

        Raises:
            CheckpointError: no model there, or a damaged or unsafe one.
            UnsupportedError: an architecture or head that pretune does not have.
        """
        if outputs is None and labels is not None:
            outputs = OutputSpec(tuple(labels))
        result = load_folder(Path(path), head, outputs, settings or {}, seed)
        return cls(
            result.family, result.config, result.network, result.tokenizer, result.head,
            outputs=result.outputs, metadata=result.metadata, fingerprints=result.fingerprints,
            path=result.path, untrained=result.untrained,
            generation_config=result.generation_config, dropped_head=result.dropped_head,
        )  # fmt: skip

    @check_arguments
    def with_random_weights(self, seed: Seed) -> Model:
        """The same architecture, tokenizer and head, knowing nothing: the control of an experiment."""
        head = "+".join(self.heads)
        network = init_network(self.family, self.config, head, self.outputs, seed)
        return Model(
            self.family,
            self.config,
            network,
            self.tokenizer,
            head,
            outputs=self.outputs,
            metadata=self.metadata,
        )

    # -- what it is -----------------------------------------------------------------------------

    @property
    def head(self) -> str:
        """The head that it is used through."""
        return self.heads[0]

    @property
    def head_use(self) -> HeadUse:
        """What that head is used for."""
        return head_use(self.family, self.head)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the head's outputs; empty where they have none."""
        return self.outputs.labels

    @property
    def max_length(self) -> int:
        """Tokens that it reads at once, special ones included."""
        return int(self.metadata.get("max_length") or self.config.max_position_embeddings)

    @property
    def device(self) -> torch.device:
        """Where its weights lie, and where it computes."""
        return network_device(self.network)

    @property
    def num_parameters(self) -> int:
        """Number of weights, shared ones counted once."""
        return sum(p.numel() for p in self.network.parameters())

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of all that decides what it says: weights, tokenizer, labels, settings."""
        content = hashlib.sha256(self.tokenizer.fingerprint.encode())
        content.update(digest([self.head, self.labels, self.metadata, self.config.model_dump()]).encode())
        for name, tensor in sorted(self.network.state_dict().items()):
            content.update(name.encode())
            content.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
        return content.hexdigest()

    # -- keeping it -----------------------------------------------------------------------------

    def write(self, folder: Path) -> None:
        """Put the model's files, in Hugging Face layout, into an existing folder."""
        head, specials = "+".join(self.heads), self.tokenizer.specials
        outputs, head_type = self.outputs, self.family.HEADS[self.head].type
        if outputs.labels and outputs.problem_type is None and head_type == "sequence":
            # As stock chooses it: one output alone is a regression.
            problem_type = "regression" if outputs.size == 1 else "single_label_classification"
            outputs = replace(outputs, problem_type=problem_type)
        config = self.config.to_hugging_face(head, outputs=outputs, specials=specials)
        operations = weight_operations(self.family, self.config, self.heads)
        hub.write_model(folder, config, weights.export_weights(self.network, operations))
        self.tokenizer.save(folder, model_max_length=self.max_length)
        atomic_files.write_json(folder / METADATA_FILE, {"head": head, **self.metadata})
        if self.head_use == "generate":
            self.generation_config.save(folder, self.tokenizer.specials)
        if self.fingerprints is not None:
            self.fingerprints.save(folder)

    @check_arguments
    def save(self, path: FilePath, *, overwrite: bool = False) -> Path:
        """Save as a folder that stock ``transformers`` loads with the same outputs: see
        `save_model_folder`.
        """
        self.path = save_model_folder(Path(path), self.write, overwrite=overwrite)
        return self.path

    @check_arguments
    def restore(self, folder: Path) -> None:
        """Put the weights of a folder that :meth:`write` wrote into this model's network."""
        operations = weight_operations(self.family, self.config, self.heads)
        missing = weights.load_weights(self.network, hub.read_tensors(folder), operations)
        if missing:
            raise CheckpointError(f"{folder}: has no weights for {', '.join(missing[:5])}")

    # -- using it -------------------------------------------------------------------------------

    @check_arguments
    def __call__(self, text: str, text_pair: str | None = None) -> Any:
        """What the head does: fill the masks, classify, or continue the text."""
        if self.task_name is not None:
            texts = (text,) if text_pair is None else (text, text_pair)
            return self.predict([self.task_type().from_texts(texts)])[0]
        if text_pair is not None:
            raise UsageError(f"text_pair = {quote(text_pair)}: a language model reads one text; leave it out")
        if self.head_use == "fill":
            return self.fill(text)
        return self.generate(text)

    @property
    def task_name(self) -> str | None:
        """The task that it was fine-tuned for; None for a language model."""
        name = self.metadata.get("task")
        return None if name is None else str(name)

    @property
    def task_type(self) -> type[Task]:
        """The class of its task.

        Raises:
            UsageError: it was fine-tuned for none.
        """
        if self.task_name is None:
            raise no_task_error(self.path, self.family, self.head)
        return find_task(self.task_name)

    def build_task(self, options: Settings | None = None) -> Task:
        """Its task with its outputs, and its options unless others are given."""
        task_type = self.task_type
        self.require_head(*task_type.heads)
        task_options = options or build_settings(
            task_type.options_type, self.metadata.get("task_options") or {}, where=METADATA_FILE
        )
        return task_type(self.outputs, task_options)

    @property
    def reader(self) -> Reader:
        """What a task encodes records for."""
        return Reader(self.tokenizer, self.max_length)

    @check_arguments
    def predict(
        self,
        records: Sequence[InstanceOf[Record] | Mapping[str, Any] | str],
        options: InstanceOf[Settings] | None = None,
        *,
        batch_size: PositiveInt | None = None,
    ) -> list[Prediction]:
        """One prediction a record, in their order.

        Args:
            records: of the task's fields; a text alone is the first of them.
            options: of the task; None: as it was trained.
            batch_size: the most rows at once; None: as many as fit the cache.

        Raises:
            DataError: a record that the task cannot use.
        """
        task = self.build_task(options)
        parsed = [self._parse(task, record, number) for number, record in enumerate(records, 1)]
        encoded = [task.encode(r, i, self.reader, labelled=False) for i, r in enumerate(parsed)]
        with explain_non_finite(self.path, self.network):
            answers = self._answer(task, [f for found in encoded for f in found], batch_size)
        each = iter(answers)
        return [
            task.decode(record, features, [next(each) for _ in features])
            for record, features in zip(parsed, encoded, strict=True)
        ]

    def _parse(self, task: Task, record: Record | Mapping[str, Any] | str, number: int) -> Record:
        """A record as the task reads it; what is no record yet is checked as a file's would be."""
        if isinstance(record, Record):
            return task.parse_record(record, labelled=False)
        given = Record(task.from_texts([record]) if isinstance(record, str) else record, "record", number)
        try:
            return task.check_record(given)
        except DataError as error:
            raise DataError(f"{given.location}: {error}") from None

    def _answer(self, task: Task, features: Sequence[Feature], batch_size: int | None) -> Sequence[Any]:
        """What the network says of features, in the task's way: see `tasks.base.Predicts`."""
        if task.predicts == "text":
            prompts = [self.tokenizer.decode(feature.sequences[0]) for feature in features]
            return [found[0].text for found in self.generate_batch(prompts)] if prompts else []
        if task.predicts == "nll":
            return prediction.predict_nll(self.network, self.head, features, self.tokenizer)
        traits: Traits = self.family.TRAITS
        if task.predicts == "vector":
            return prediction.predict_vectors(
                self.network, features, self.tokenizer.specials, segments=traits.has_segment_embeddings
            )
        objective = find("objectives", task.objective).Objective(traits, self.tokenizer.specials)
        capacity = self.max_length if traits.supports_packing else None
        return prediction.predict_logits(
            self.network, objective, features, row_capacity=capacity, batch_size=batch_size
        )

    @check_arguments
    def classify(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[Prediction]:
        """The class, or the labels, of each text, or of each pair."""
        if pairs is not None and len(pairs) != len(texts):
            raise UsageError(f"{len(texts)} texts and {len(pairs)} second texts do not pair up")
        task = self.task_type()
        rows = [(text,) for text in texts] if pairs is None else list(zip(texts, pairs, strict=True))
        return self.predict([task.from_texts(row) for row in rows])

    @check_arguments
    def fill(
        self,
        text: str,
        top_k: PositiveInt | None = None,
        *,
        targets: Sequence[str] = (),
        joint: bool = False,
        whole_words: bool = False,
    ) -> list[list[MaskPrediction]]:
        """For each mask token in ``text``, the likeliest tokens, best first.

        Args:
            top_k: how many; default 5, or all ``targets``.
            targets: what may stand there and nothing else; a word of several tokens is welcome.
            joint: all masks together, left to right, by a beam: guess i of each mask belongs to filling i,
                whose probability it carries.
            whole_words: words of several tokens, too, compared by their probability a token.
        """
        self.require_use("fill")
        masks = MaskFiller(self.network, self.tokenizer, self.max_length, self.head)
        with explain_non_finite(self.path, self.network):
            return fill_masks(masks, text, top_k, targets=targets, joint=joint, whole_words=whole_words)

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
        split_special_tokens: bool = False,
        apply_chat_template: bool = False,
    ) -> str:
        """Continue ``prompt``; the continuation alone is returned, and ends where the model ends the text.

        The names of special tokens in ``prompt`` are these tokens, unless ``split_special_tokens``. With
        ``apply_chat_template`` the prompt is put into the model's chat template, as what a user says. An
        encoder-decoder reads ``prompt`` as its source, and writes what it was trained to make of it.
        What is left out is decided by the model: by its generation_config.json, or by the defaults of
        `Decoding` (50 new tokens) and ``Sampling()``.
        """
        values = {
            "max_new_tokens": max_new_tokens, "min_new_tokens": min_new_tokens, "stop": stop,
            "sampling": sampling, "num_beams": num_beams, "seed": seed,
            "split_special_tokens": split_special_tokens, "apply_chat_template": apply_chat_template,
        }  # fmt: skip
        return self.generate_batch([prompt], build_decoding(values))[0][0].text

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
        split_special_tokens: bool = False,
        apply_chat_template: bool = False,
    ) -> Iterator[str]:
        """The text of :meth:`generate` piece by piece, as soon as its characters are whole."""
        values = {
            "max_new_tokens": max_new_tokens, "min_new_tokens": min_new_tokens, "stop": stop,
            "sampling": sampling, "seed": seed,
            "split_special_tokens": split_special_tokens, "apply_chat_template": apply_chat_template,
        }  # fmt: skip
        return self.stream_decoding(prompt, build_decoding(values))

    @check_arguments
    def stream_decoding(self, prompt: str, decoding: InstanceOf[Decoding]) -> Iterator[str]:
        """:meth:`stream` with all that ``decoding`` says, but for several texts and beams.

        Raises:
            UsageError: ``decoding`` asks for these.
        """
        if decoding.num_beams > 1 or decoding.num_return_sequences > 1:
            raise UsageError("a stream is one text; leave out num_beams and num_return_sequences")
        pieces = self._build_decoder().stream(prompt, decoding)

        def stream_pieces() -> Iterator[str]:
            with explain_non_finite(self.path, self.network):
                yield from pieces

        return stream_pieces()

    @check_arguments
    def generate_batch(
        self, prompts: Sequence[str], decoding: InstanceOf[Decoding] | None = None
    ) -> list[list[Continuation]]:
        """Continue each prompt ``decoding.num_return_sequences`` times, several prompts at once."""
        decoder = self._build_decoder()
        with explain_non_finite(self.path, self.network):
            return decoder.generate(prompts, decoding or Decoding())

    @check_arguments
    def score(self, text: str, *, stride: int | None = None, within_word: bool = False) -> TextScore:
        """How probable the model finds a text, a token at a time; see `inference.evaluation_objective`.

        A causal model gives the log-probability, a masked one the pseudo-log-likelihood.

        Args:
            stride: of a text longer than the model reads: how many tokens a window scores; the others that it
                reads are their context. Default: half of what the model reads.
            within_word: of a masked model: a token is scored without the later ones of its word.
        """
        return self.score_batch([text], stride=stride, within_word=within_word)[0]

    @check_arguments
    def score_batch(
        self, texts: Sequence[str], *, stride: int | None = None, within_word: bool = False
    ) -> list[TextScore]:
        """:meth:`score` of each text, several at once."""
        self.require_use("generate", "fill")
        if self.family.TRAITS.architecture == "encoder-decoder":
            raise no_score_error(self.path)
        scorer = partial(score_masked, head=self.head) if self.head_use == "fill" else score_causal
        with explain_non_finite(self.path, self.network):
            return scorer(
                self.network, self.tokenizer, texts, max_length=self.max_length, stride=stride,
                within_word=within_word,
            )  # fmt: skip

    def take_unused_settings(self) -> str:
        """What its generation_config.json asks for and pretune does not do, once; empty when it was asked."""
        unused, self._unused_settings = self._unused_settings, ()
        return f"not done as its {FILE_NAME} asks: {', '.join(unused)}" if unused else ""

    def _build_decoder(self) -> TextGenerator:
        self.require_use("generate")
        unused = self.take_unused_settings()
        if unused:
            warnings.warn(f"{self.path or 'this model'}: {unused}", UserWarning, stacklevel=4)
        limit = int(self.config.max_position_embeddings)
        objective = self.metadata.get("objective")
        return TextGenerator(
            self.network,
            self.tokenizer,
            self.generation_config,
            limit,
            bidirectional_prompt=objective in PREFIX_OBJECTIVES,
        )

    def require_head(self, *heads: str) -> None:
        """See that the model has a trained head, and that it is one of these, which a task names.

        Raises:
            UsageError: it has another, or one that the folder had no weights for.
        """
        check_trained(self.path, self.family, self.head, self.untrained)
        check_head(self.path, self.family, self.head, heads)

    def require_use(self, *uses: HeadUse) -> None:
        """See that the model has a trained head that is used in one of these ways.

        Raises:
            UsageError: it has another, or one that the folder had no weights for.
        """
        check_trained(self.path, self.family, self.head, self.untrained)
        check_use(self.path, self.family, self.head, uses)
