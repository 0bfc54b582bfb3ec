"""The teacher of a run: loaded, seen to fit the student, and the same from the first step to the last."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pretune.errors import ConfigError, UnsupportedError
from pretune.model.folder import read_folder_info
from pretune.model.model import Model
from pretune.objectives import DistillationObjective, DistillationSettings, Objective, check_hidden_sizes
from pretune.runtime.distributed import World
from pretune.runtime.progress import Reporter
from pretune.runtime.run_folder import Run
from pretune.text.tokenizer import Tokenizer
from pretune.training.settings import TrainingSettings
from pretune.types import Traits

TOKENIZER_KEYS = ("normalizer", "pre_tokenizer", "model", "added_tokens")
"""What of a tokenizer decides which ids a text becomes, but for its frame."""


@dataclass(frozen=True, slots=True)
class StudentSpec:
    """What a teacher must fit."""

    tokenizer: Tokenizer
    traits: Traits
    heads: tuple[str, ...]
    max_length: int
    device: torch.device
    labels: tuple[str, ...] = ()
    task: str | None = None

    @classmethod
    def from_model(cls, model: Model, world: World) -> StudentSpec:
        """A model that is there already."""
        return cls(
            model.tokenizer, model.family.TRAITS, model.heads, model.max_length, world.device, model.labels,
            model.task_name,
        )  # fmt: skip


class Teacher:
    """A model to learn from, that reads what the student reads."""

    def __init__(self, settings: DistillationSettings, student: StudentSpec) -> None:
        """
        Raises:
            CheckpointError: no model there, or a damaged one.
            ConfigError: it has another tokenizer or other labels, or reads too little at once.
            UnsupportedError: it has no such head, or reads a batch otherwise than the student.
        """
        self.settings = settings
        self._check_head(student)
        # Of a classifier its own labels are loaded: with others its head would begin anew.
        self.model = Model.load(Path(settings.teacher), head="+".join(student.heads))
        self._check_tokenizer(student.tokenizer)
        self._check_outputs(student)
        self._check_traits(student.traits)
        self.model.network.to(student.device)

    @classmethod
    def from_settings(
        cls, settings: DistillationSettings | None, student: StudentSpec, reporter: Reporter
    ) -> Teacher | None:
        """The teacher that the settings name, if they do."""
        if settings is None:
            return None
        teacher = cls(settings, student)
        reporter.say(f"  teacher: {settings.teacher}, {teacher.model.num_parameters:,} parameters")
        return teacher

    def _check_head(self, student: StudentSpec) -> None:
        own = read_folder_info(self.settings.teacher).head
        if not set(student.heads) <= set((own or "").split("+")):
            raise UnsupportedError(
                f"distillation.teacher = {self.settings.teacher!r}: it has no trained "
                f"{' and '.join(student.heads)} head, but {own or 'none'}; give a model that was trained by "
                "the student's objective"
            )

    def _check_tokenizer(self, tokenizer: Tokenizer) -> None:
        theirs = self.model.tokenizer
        ours, others = tokenizer.to_dict(), theirs.to_dict()
        differs = [key for key in TOKENIZER_KEYS if ours.get(key) != others.get(key)]
        if tokenizer.specials != theirs.specials:
            differs.append("special tokens")
        if differs:
            raise ConfigError(
                f"distillation.teacher = {self.settings.teacher!r}: its tokenizer is not the student's (they "
                f"differ in {', '.join(differs)}), so that their chances are of different tokens; train the "
                "student with the teacher's (tokenizer=TEACHER), or choose a teacher with the student's"
            )

    def _check_outputs(self, student: StudentSpec) -> None:
        where = f"distillation.teacher = {self.settings.teacher!r}"
        if self.model.task_name != student.task:
            raise UnsupportedError(
                f"{where}: it was trained for {self.model.task_name}, the student is for {student.task}; "
                "give a teacher that was trained for the student's task"
            )
        if student.labels and self.model.labels != student.labels:
            raise ConfigError(
                f"{where}: it knows the labels {', '.join(self.model.labels)}, the records have "
                f"{', '.join(student.labels)}; fine-tune the teacher on records with the same labels first"
            )
        if self.model.max_length < student.max_length:
            raise ConfigError(
                f"{where}: it reads {self.model.max_length} tokens at most, the student "
                f"{student.max_length}; set max_length={self.model.max_length} or less"
            )

    def _check_traits(self, student_traits: Traits) -> None:
        own = _batch_traits(student_traits)
        for name, value in _batch_traits(self.model.family.TRAITS).items():
            if own[name] != value:
                raise UnsupportedError(
                    f"distillation.teacher = {self.settings.teacher!r}: its family reads a batch otherwise "
                    f"than the student's ({name}: {value!r} and {own[name]!r}); "
                    "choose a teacher of the student's family, or of one like it"
                )


def _batch_traits(traits: Traits) -> dict[str, str | bool]:
    """What of a family's traits decides how it reads a batch."""
    return {
        "architecture": traits.architecture,
        "pooling": traits.pooling,
        "segment embeddings": traits.has_segment_embeddings,
    }


def record_teacher(teacher: Teacher | None, run: Run) -> None:
    """Note in the run which teacher it has.

    Raises:
        ConfigError: the run began with another one in the same folder.
    """
    if teacher is None:
        return
    plan, fingerprint = run.read_plan(), teacher.model.fingerprint
    if plan.get("teacher", fingerprint) != fingerprint:
        raise ConfigError(
            f"{run.folder}: the teacher in {teacher.settings.teacher} is no longer the one that this run "
            "began with; put it back to go on, or give another folder with --out"
        )
    run.write_plan(plan | {"teacher": fingerprint})


def teacher_summary(teacher: Teacher | None) -> dict[str, Any]:
    """What a run's summary says of its teacher; nothing where there is none."""
    if teacher is None:
        return {}
    settings, model = teacher.settings, teacher.model
    folder = Path(settings.teacher).resolve()
    return {
        "teacher": {
            "name": folder.parent.name if folder.name == "model" else folder.name,
            "path": settings.teacher,
            "family": model.family.__name__.rpartition(".")[2],
            "parameters": model.num_parameters,
            "fingerprint": model.fingerprint,
            "weight": settings.weight,
            "temperature": settings.temperature,
            "hidden_weight": settings.hidden_weight,
        }
    }


def wrap_objective(teacher: Teacher | None, objective: Objective) -> Objective:
    """``objective``, with the teacher at its side, if there is one."""
    if teacher is None:
        return objective
    network, module = teacher.model.network, teacher.model.family
    vocabulary = teacher.model.tokenizer.vocabulary_size
    return DistillationObjective(
        objective, network, teacher.settings, vocabulary, supports_packing=module.TRAITS.supports_packing
    )


def check_distillation(
    settings: DistillationSettings | None,
    config: Any,
    training: TrainingSettings,
    *,
    is_size_known: bool = True,
) -> None:
    """See, before any weight is read, that there is a teacher and that hidden states can be compared.

    Args:
        config: the student's.
        is_size_known: is its width the one in ``config``, or one that will be chosen by measurement?

    Raises:
        CheckpointError: no model there.
        ConfigError: the student's width is not known.
        UnsupportedError: the widths differ, or the student's weights are to be spread over ranks.
    """
    if settings is None:
        return
    if training.parallel == "fsdp":
        raise UnsupportedError(
            "distillation reads heads outside of the network's own pass, and is not offered for weights that "
            "are spread over processes; set training.parallel=ddp"
        )
    teacher = read_folder_info(settings.teacher).config.hidden_size
    if not settings.hidden_weight:
        return
    if not is_size_known:
        raise ConfigError(
            "distillation.hidden_weight: the student must be as wide as the teacher, and its size was left "
            f"to the time; set model.hidden_size={teacher}, or leave hidden_weight at 0"
        )
    check_hidden_sizes(config.hidden_size, teacher)


def teacher_tokenizer(settings: DistillationSettings) -> str:
    """The folder of the tokenizer that a new student must have: the teacher's.

    Raises:
        CheckpointError: no model there.
    """
    return str(read_folder_info(settings.teacher).folder)
