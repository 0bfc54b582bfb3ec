"""A mixture of objectives: each batch is of one part, and is learnt from as that part's objective says.

Each part's terms have names of their own, so that each is divided by the targets of its own part in the step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pretune.types import Batch, Loss, NetworkLike, ObjectiveLike


class MixtureObjective:
    """The objectives of a mixture's parts, by the parts' names."""

    def __init__(self, components: Mapping[str, ObjectiveLike]) -> None:
        self.components = dict(components)

    def loss(self, network: NetworkLike, batch: Batch) -> Iterator[Loss]:
        """The losses of the batch's part, which count for that part's share of the step."""
        assert batch.component is not None, "a mixture's batches say of which part they are"
        for loss in self.components[batch.component].loss(network, batch):
            yield Loss(
                {
                    mixture_term(batch.component, name): (total, batch.loss_weight * weight)
                    for name, (total, weight) in loss.terms.items()
                }
            )


def mixture_term(component: str, name: str) -> str:
    """What a term of a part's loss is called beside those of the others."""
    return f"{component}/{name}"
