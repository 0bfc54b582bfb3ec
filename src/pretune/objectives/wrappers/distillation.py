"""Distillation: learn from the chances that a larger model gives, beside what an objective asks for.

The loss is the weighted mean of the objective's own and of the divergence from the teacher's softened chances
at the same places (Hinton et al. 2015, section 2); the cosine of the last hidden states may be added (Sanh
et al. 2019, DistilBERT, section 2). What a place says is the head's whole distribution, so that a student
learns from each target what the teacher knows of all others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pydantic
import torch
from torch import Tensor, nn

from pretune.config import Settings
from pretune.errors import UnsupportedError
from pretune.nn import heads as nn_heads
from pretune.nn.distillation_loss import cosine_distance, kl_divergence, vocabulary_kl_divergence
from pretune.objectives.base import Objective
from pretune.objectives.wrappers.wrapper import ObjectiveWrapper
from pretune.types import (
    IGNORE_INDEX,
    Batch,
    Example,
    Loss,
    LossOptions,
    LossTerms,
    NetworkLike,
    Outputs,
)

HIDDEN_TERM = "hidden_distillation"


class DistillationSettings(Settings):
    """A larger model to learn from, and how much."""

    teacher: str
    """A run or model folder with the same tokenizer, and the head that is trained here."""
    weight: float = pydantic.Field(default=0.5, ge=0, le=1)
    """Share of the teacher's chances in the loss; the rest is the objective's own."""
    temperature: float = pydantic.Field(default=2.0, gt=0)
    """What both networks' logits are divided by, so that unlikely answers count, too."""
    hidden_weight: float = pydantic.Field(default=0.0, ge=0)
    """Of one less the cosine of the last hidden states, added to the loss; needs a teacher of one's width."""


class DistillationObjective(ObjectiveWrapper):
    """An objective with a teacher at its side.

    The teacher is frozen and runs once a batch, without dropout: it draws nothing at random.
    """

    def __init__(
        self,
        inner: Objective,
        teacher: nn.Module,
        settings: DistillationSettings,
        vocab_size: int,
        *,
        supports_packing: bool = True,
    ) -> None:
        """
        Args:
            vocab_size: ids of the shared tokenizer.
            supports_packing: can the teacher read packed rows?

        Raises:
            UnsupportedError: the targets of ``inner`` are no distribution over a head's logits.
        """
        super().__init__(inner)
        if not inner.is_distillable:
            raise UnsupportedError(
                f"distillation: the loss of {' and '.join(inner.heads)} cannot be compared with a teacher's; "
                "masked_lm, causal_lm and classification can; leave distillation out, or train by one of them"
            )
        self.settings, self.vocab_size = settings, vocab_size
        self.teacher = teacher.eval().requires_grad_(False)
        self.supports_packing = inner.supports_packing and supports_packing

    def collate(self, groups: Sequence[Sequence[Example]]) -> Batch:
        """A group of examples a row of the grid."""
        batch = self.inner.collate(groups)
        counts = {
            **batch.counts,
            **{distillation_term(h): batch.counts[h] for h in self.heads if h in batch.counts},
        }
        return replace(batch, counts={**counts, HIDDEN_TERM: int(batch.layout.lengths.sum())})

    def loss(self, network: NetworkLike, batch: Batch) -> Iterator[Loss]:
        """The objective's terms and those that compare with the teacher, of one pass through each network.

        Raises:
            UnsupportedError: hidden states are compared, and the two networks differ in width.
        """
        student = _EncodedNetwork(network, batch)
        teacher_weight, terms = self.settings.weight, {}
        [inner_loss] = self.inner.loss(student, batch)
        for name, (total, weight) in inner_loss.terms.items():
            terms[name] = (total, (1 - teacher_weight) * weight)
        yield Loss(
            {**terms, **self._distillation_terms(student, _teacher_hidden(self.teacher, batch), batch)}
        )

    def _distillation_terms(
        self, student: _EncodedNetwork, teacher_hidden: Tensor, batch: Batch
    ) -> LossTerms:
        terms = {
            distillation_term(h): (
                self._head_divergence(h, student, teacher_hidden, batch),
                self.settings.weight,
            )
            for h in self.heads
        }
        if self.settings.hidden_weight:
            check_hidden_sizes(student.hidden.shape[-1], teacher_hidden.shape[-1])
            distance = cosine_distance(student.hidden, teacher_hidden, batch.layout.lengths)
            terms[HIDDEN_TERM] = (distance, self.settings.hidden_weight)
        return terms

    def _head_divergence(
        self, head: str, student: _EncodedNetwork, teacher_hidden: Tensor, batch: Batch
    ) -> Tensor:
        teacher: Any = self.teacher
        counted = batch.targets[head] != IGNORE_INDEX  # (N,)
        teacher_inputs = nn_heads.head_inputs(teacher.heads, teacher_hidden, batch, head)[counted]  # (n, E)
        if head in student.logits:  # those that the objective has seen, dropout and all
            with torch.no_grad():
                teacher_logits = teacher.heads[head](teacher_inputs)  # (n, C)
            return kl_divergence(student.logits[head][counted], teacher_logits, self.settings.temperature)
        return vocabulary_kl_divergence(
            student.heads[head],
            nn_heads.head_inputs(student.heads, student.hidden, batch, head)[counted],
            teacher.heads[head],
            teacher_inputs,
            vocab_size=self.vocab_size,
            temperature=self.settings.temperature,
        )


def distillation_term(head: str) -> str:
    """The name of the term that compares a head with the teacher's."""
    return f"{head}_distillation"


def check_hidden_sizes(student: int, teacher: int) -> None:
    """See that hidden states can be compared.

    Raises:
        UnsupportedError: the networks differ in width.
    """
    if student != teacher:
        raise UnsupportedError(
            f"distillation.hidden_weight: hidden states are compared number by number, and the student "
            f"has {student} a place, the teacher {teacher}; leave hidden_weight at 0, or give both one "
            "hidden_size"
        )


class _EncodedNetwork:
    """A network whose body has run over a batch: heads are read off the hidden states at hand."""

    def __init__(self, network: Any, batch: Batch) -> None:
        self.heads: nn.ModuleDict = network.heads
        self.hidden: Tensor = network(batch, heads=()).hidden  # (B, T, D)
        self.logits: dict[str, Tensor] = {}

    def __call__(
        self,
        batch: Batch,
        heads: Sequence[str] = (),
        targets: Mapping[str, Tensor] | None = None,
        loss: LossOptions | None = None,
        cache: Any = None,
    ) -> Outputs:
        outputs = nn_heads.run_heads(self.heads, self.hidden, batch, heads, targets, loss)
        self.logits |= outputs.logits
        return outputs


@torch.no_grad()
def _teacher_hidden(teacher: nn.Module, batch: Batch) -> Tensor:
    """The teacher's hidden states, (B, T, E)."""
    hidden: Tensor = teacher(batch, heads=()).hidden
    return hidden
