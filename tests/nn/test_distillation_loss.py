"""What distillation lessens: equal to torch's own losses, without holding all logits."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretune.nn import distillation_loss
from pretune.nn.heads import VocabularyHead
from pretune.nn.vocabulary_loss import MIN_CHUNK_ROWS

VOCABULARY = 20_000
PLACES = 3 * MIN_CHUNK_ROWS + 5


def reference(logits: Tensor, told: Tensor, temperature: float) -> Tensor:
    """As Hugging Face's distillation script writes it, summed over places."""
    loss = nn.KLDivLoss(reduction="sum")
    ours, theirs = (F.log_softmax(logits / temperature, -1), F.softmax(told / temperature, -1))
    return loss(ours, theirs) * temperature**2


def student_and_teacher() -> tuple[VocabularyHead, VocabularyHead, Tensor, Tensor]:
    """Of other widths, and the teacher with more ids than the tokenizer has."""
    torch.manual_seed(0)
    student = VocabularyHead(nn.Linear(8, VOCABULARY), nn.Linear(8, 8))
    teacher = VocabularyHead(nn.Linear(12, VOCABULARY + 24, bias=False)).requires_grad_(False)
    return student, teacher, torch.randn(PLACES, 8, requires_grad=True), torch.randn(PLACES, 12)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_several_chunks_equal_the_plain_divergence(temperature: float) -> None:
    student, teacher, hidden, told = student_and_teacher()
    given = [hidden, *student.parameters()]
    plain = reference(student(hidden), teacher(told)[:, :VOCABULARY], temperature)
    ours = distillation_loss.vocabulary_kl_divergence(
        student, hidden, teacher, told, vocab_size=VOCABULARY, temperature=temperature
    )
    assert plain > 1
    torch.testing.assert_close(ours, plain, atol=0, rtol=1e-5)
    pairs = zip(torch.autograd.grad(ours / 7, given), torch.autograd.grad(plain / 7, given), strict=True)
    for mine, theirs in pairs:
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


def test_gradients_agree_with_differences() -> None:
    """By finite differences in fp64, so that the reference is no loss of torch's at all."""
    torch.manual_seed(0)
    logits = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    told = torch.randn(4, 6, dtype=torch.float64)

    def exact(values: Tensor) -> Tensor:
        ours, theirs = torch.log_softmax(values / 3, -1), torch.log_softmax(told / 3, -1)
        return 9 * (theirs.exp() * (theirs - ours)).sum()

    assert torch.autograd.gradcheck(exact, (logits,))
    [mine] = torch.autograd.grad(distillation_loss.kl_divergence(logits, told, 3.0), (logits,))
    [theirs] = torch.autograd.grad(exact(logits), (logits,))
    torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)  # ours is in fp32


def test_who_says_the_same_is_not_apart() -> None:
    student, _, hidden, _ = student_and_teacher()
    twin = copy.deepcopy(student)
    ours = distillation_loss.vocabulary_kl_divergence(
        student, hidden, twin, hidden.detach(), vocab_size=VOCABULARY, temperature=2.0
    )
    assert abs(ours.item()) < 1e-2 * PLACES / 1000  # rounding of 20,000 chances a place
    assert distillation_loss.cosine_distance(hidden[None], 3 * hidden[None], torch.tensor([PLACES])) < 1e-3


def test_nothing_is_learnt_without_gradients_and_none_by_the_teacher() -> None:
    student, teacher, hidden, told = student_and_teacher()
    told.requires_grad_()
    with torch.no_grad():
        still = distillation_loss.vocabulary_kl_divergence(
            student, hidden, teacher, told, vocab_size=VOCABULARY, temperature=2.0
        )
    assert not still.requires_grad
    ours = distillation_loss.vocabulary_kl_divergence(
        student, hidden, teacher, told, vocab_size=VOCABULARY, temperature=2.0
    )
    torch.testing.assert_close(ours, still)
    ours.backward()
    assert told.grad is None


def test_no_more_than_a_chunk_of_logits_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    student, teacher, hidden, told = student_and_teacher()
    seen: list[int] = []
    for module in (student, teacher):
        module.register_forward_hook(lambda _module, _inputs, output: seen.append(len(output)))
    distillation_loss.vocabulary_kl_divergence(
        student, hidden, teacher, told, vocab_size=VOCABULARY, temperature=2.0
    )
    assert sum(seen) == 2 * PLACES
    assert max(seen) <= MIN_CHUNK_ROWS


def test_the_cosine_is_that_of_distilbert() -> None:
    """Its released code: ``CosineEmbeddingLoss`` over the hidden states of the places that are no padding."""
    torch.manual_seed(0)
    hidden, told = torch.randn(2, 5, 8, requires_grad=True), torch.randn(2, 5, 8)
    lengths = torch.tensor([5, 3])
    real = torch.arange(5) < lengths[:, None]
    loss = nn.CosineEmbeddingLoss(reduction="sum")
    plain = loss(hidden[real], told[real], torch.ones(8))
    ours = distillation_loss.cosine_distance(hidden, told, lengths)
    torch.testing.assert_close(ours, plain)
    [mine], [theirs] = (torch.autograd.grad(total, (hidden,)) for total in (ours, plain))
    torch.testing.assert_close(mine, theirs)
