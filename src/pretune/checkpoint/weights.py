"""A checkpoint's tensors from their names (transformers) to ours and back, both from one list."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from pretune.errors import CheckpointError

State = dict[str, Tensor]

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
"""What weights may be stored as."""


class Operation(Protocol):
    """One step of the way; ``read`` moves tensors from theirs to ours, ``write`` back."""

    def read(self, theirs: State, ours: State) -> None: ...

    def write(self, theirs: State, ours: State) -> None: ...


@dataclass(frozen=True)
class Accept:
    """Another name under which a tensor may be found (a regular expression); never written."""

    pattern: str
    name: str

    def read(self, theirs: State, ours: State) -> None:
        for old in list(theirs):
            new = re.sub(self.pattern, self.name, old)
            if new != old:
                theirs[new] = theirs.pop(old)

    def write(self, theirs: State, ours: State) -> None:
        pass


@dataclass(frozen=True)
class Ignore:
    """A tensor that carries nothing we need, such as a buffer; never written."""

    theirs: str

    def read(self, theirs: State, ours: State) -> None:
        for name, _ in _matching(self.theirs, theirs):
            del theirs[name]

    def write(self, theirs: State, ours: State) -> None:
        pass


@dataclass(frozen=True)
class Rename:
    """One tensor under two names; ``{}`` stands for a number, ``{word}`` for a part without dots."""

    ours: str
    theirs: str

    def read(self, theirs: State, ours: State) -> None:
        for name, parts in _matching(self.theirs, theirs):
            ours[_filled(self.ours, parts)] = theirs.pop(name)

    def write(self, theirs: State, ours: State) -> None:
        for name, parts in _matching(self.ours, ours):
            theirs[_filled(self.theirs, parts)] = ours.pop(name)


@dataclass(frozen=True)
class RenameTogether:
    """Tensors under two names each, where all of them are there: what one is called depends on the others."""

    ours: tuple[str, ...]
    theirs: tuple[str, ...]

    def read(self, theirs: State, ours: State) -> None:
        _move_together(self.theirs, theirs, self.ours, ours)

    def write(self, theirs: State, ours: State) -> None:
        _move_together(self.ours, ours, self.theirs, theirs)


@dataclass(frozen=True)
class Transpose:
    """A matrix of ours that theirs holds transposed (GPT-2's Conv1D); stands after its `Rename`."""

    ours: str

    def read(self, theirs: State, ours: State) -> None:
        for name, _ in _matching(self.ours, ours):
            if ours[name].ndim != 2:
                raise CheckpointError(f"{name}: shape {tuple(ours[name].shape)}, where a matrix belongs")
            ours[name] = ours[name].transpose(-2, -1).contiguous()

    write = read


@dataclass(frozen=True)
class Flatten:
    """What theirs holds as (..., H, K) is (..., H * K) here; stands after its `Rename`.

    ``like`` is a tensor of ours whose shape ends in H and K.
    """

    ours: str
    like: str

    def read(self, theirs: State, ours: State) -> None:
        for name, _ in _matching(self.ours, ours):
            ours[name] = ours[name].flatten(-2)

    def write(self, theirs: State, ours: State) -> None:
        for name, parts in _matching(self.ours, ours):
            heads = ours[_filled(self.like, parts)].shape[-2:]
            ours[name] = ours[name].reshape(*ours[name].shape[:-1], *heads)


@dataclass(frozen=True)
class OneRow:
    """A vector of ours that theirs holds as a matrix of one row; stands after its `Rename`."""

    ours: str

    def read(self, theirs: State, ours: State) -> None:
        for name, _ in _matching(self.ours, ours):
            ours[name] = ours[name].flatten()

    def write(self, theirs: State, ours: State) -> None:
        for name, _ in _matching(self.ours, ours):
            ours[name] = ours[name][None]


@dataclass(frozen=True)
class Split:
    """One tensor of theirs that is several of ours, equal parts along ``dim``."""

    ours: tuple[str, ...]
    theirs: str
    dim: int = 0

    def read(self, theirs: State, ours: State) -> None:
        for name, parts in _matching(self.theirs, theirs):
            fused = theirs.pop(name)
            if fused.shape[self.dim] % len(self.ours):
                raise CheckpointError(f"{name}: {tuple(fused.shape)} is not {len(self.ours)} equal parts")
            for ours_name, piece in zip(self.ours, fused.chunk(len(self.ours), self.dim), strict=True):
                ours[_filled(ours_name, parts)] = piece.contiguous()

    def write(self, theirs: State, ours: State) -> None:
        for _, parts in _matching(self.ours[0], ours):
            pieces = [ours.pop(_filled(name, parts)) for name in self.ours]
            theirs[_filled(self.theirs, parts)] = torch.cat(pieces, self.dim)


@dataclass(frozen=True)
class Share:
    """One tensor of theirs that several heads of ours read through the same module."""

    ours: tuple[str, ...]
    theirs: str

    def read(self, theirs: State, ours: State) -> None:
        for name, parts in _matching(self.theirs, theirs):
            tensor = theirs.pop(name)
            ours.update((_filled(ours_name, parts), tensor) for ours_name in self.ours)

    def write(self, theirs: State, ours: State) -> None:
        for template in self.ours:
            for name, parts in _matching(template, ours):
                theirs[_filled(self.theirs, parts)] = ours.pop(name)


@dataclass(frozen=True)
class Tie:
    """One tensor that theirs may hold under a second name; ``name`` is the one that they compute with."""

    name: str
    copy: str

    def read(self, theirs: State, ours: State) -> None:
        if self.copy in theirs:
            theirs.setdefault(self.name, theirs.pop(self.copy))

    def write(self, theirs: State, ours: State) -> None:
        if self.name in theirs:
            theirs[self.copy] = theirs[self.name].clone()


@dataclass(frozen=True)
class Repeat:
    """A tensor that theirs may hold once more under another name; never written."""

    name: str
    of: str

    def read(self, theirs: State, ours: State) -> None:
        again = theirs.pop(self.name, None)
        if again is not None and self.of in theirs and not torch.equal(again, theirs[self.of]):
            raise CheckpointError(f"{self.name} differs from {self.of}, and the family has one for both")
        if again is not None:
            theirs.setdefault(self.of, again)

    def write(self, theirs: State, ours: State) -> None:
        pass


def _same(tensor: Tensor) -> Tensor:
    return tensor


@dataclass(frozen=True)
class Default:
    """A tensor that theirs may leave out, and what it then is, made of one that they have."""

    name: str
    of: str
    make: Callable[[Tensor], Tensor] = _same

    def read(self, theirs: State, ours: State) -> None:
        if self.of in theirs and self.name not in theirs:
            theirs[self.name] = self.make(theirs[self.of])

    def write(self, theirs: State, ours: State) -> None:
        pass


@dataclass(frozen=True)
class Wrap:
    """All but a head stands under a ``prefix`` in theirs where it has that head; the first operation."""

    prefix: str
    head: str
    """What the names of that head begin with."""

    def read(self, theirs: State, ours: State) -> None:
        for name in [name for name in theirs if name.startswith(self.prefix)]:
            theirs[name.removeprefix(self.prefix)] = theirs.pop(name)

    def write(self, theirs: State, ours: State) -> None:
        body = [name for name in theirs if not name.startswith(self.head)]
        if len(body) < len(theirs):
            for name in body:
                theirs[self.prefix + name] = theirs.pop(name)


def to_ours(state: State, ops: Sequence[Operation]) -> State:
    """Tensors by their names to tensors by ours.

    Raises:
        CheckpointError: names the tensors that no operation knows.
    """
    theirs, ours = dict(state), State()
    for op in ops:
        op.read(theirs, ours)
    if theirs:
        raise CheckpointError(f"the family has no place for {_listed(theirs)}; is it another architecture?")
    return ours


def to_theirs(state: State, ops: Sequence[Operation]) -> State:
    """Tensors by our names to tensors by theirs.

    Raises:
        CheckpointError: names the tensors that stock transformers has no place for.
    """
    theirs, ours = State(), dict(state)
    for op in reversed(ops):
        op.write(theirs, ours)
    if ours:
        raise CheckpointError(f"stock transformers has no place for {_listed(ours)}")
    return theirs


def export(network: nn.Module, ops: Sequence[Operation]) -> State:
    """The parameters of a network under their names, each shared one once."""
    return to_theirs({name: p.detach() for name, p in network.named_parameters()}, ops)


@torch.no_grad()
def load_into(network: nn.Module, tensors: State, ops: Sequence[Operation]) -> list[str]:
    """Copy a checkpoint's tensors into a network; nothing is changed unless all of them fit.

    Tensors of heads (``heads.<name>.*`` in ours) that the network was built without are left out.

    Returns:
        The names (ours) of head parameters that the checkpoint does not have: they keep their values.

    Raises:
        CheckpointError: names a tensor that is unknown, of another shape, missing outside the heads, or
            different from the one that it is tied to.
    """
    ours = to_ours(tensors, ops)
    _check_numbers(ours, tensors)
    parameters = dict(network.named_parameters(remove_duplicate=False))
    surplus = [n for n in ours if n not in parameters and not _of_absent_head(n, parameters)]
    if surplus:
        raise CheckpointError(f"the network has no place for {_listed(surplus)}; config.json says otherwise")
    given: dict[nn.Parameter, str] = {}
    for name, parameter in parameters.items():
        if name not in ours:
            continue
        if ours[name].shape != parameter.shape:
            shapes = f"{tuple(ours[name].shape)}, not {tuple(parameter.shape)} as config.json says"
            raise CheckpointError(f"{name}: shape {shapes}")
        first = given.setdefault(parameter, name)
        if first != name and not torch.equal(ours[first], ours[name]):
            raise CheckpointError(
                f"{name} differs from {first}; set tie_word_embeddings to false in config.json"
            )
    missing = [name for name, parameter in network.named_parameters() if parameter not in given]
    lost = [name for name in missing if not name.startswith("heads.")]
    if lost:
        raise CheckpointError(f"the checkpoint lacks {_listed(lost)}; fetch or save it again")
    for parameter, name in given.items():
        parameter.copy_(ours[name])
    return missing


def _check_numbers(ours: State, theirs: State) -> None:
    """See that weights are stored as numbers with a fraction, which need no scale to mean something.

    Raises:
        CheckpointError: names one that is not.
    """
    for name, tensor in ours.items():
        if tensor.dtype not in DTYPES:
            stored = next((key for key, other in theirs.items() if other is tensor), name)
            kind = str(tensor.dtype).removeprefix("torch.")
            raise CheckpointError(
                f"{stored}: stored as {kind}: that is no weight, but what a quantisation made of one; fetch "
                "the model in float32, bfloat16 or float16"
            )


def _of_absent_head(name: str, parameters: dict[str, nn.Parameter]) -> bool:
    room, *rest = name.split(".")
    prefix = f"heads.{rest[0]}." if rest else ""
    return room == "heads" and not any(known.startswith(prefix) for known in parameters)


def _matching(template: str, state: State) -> list[tuple[str, dict[str, str]]]:
    """The names that fit a template, each with what stands for its fields."""
    fields = [match[1] for match in re.finditer(r"\{(\w*)\}", template)]
    pattern = re.escape(template)
    for field in fields:
        pattern = pattern.replace(re.escape("{" + field + "}"), r"([^.]+)" if field else r"(\d+)", 1)
    found = ((name, re.fullmatch(pattern, name)) for name in state)
    return [(name, dict(zip(fields, match.groups(), strict=True))) for name, match in found if match]


def _move_together(names: Sequence[str], old: State, others: Sequence[str], new: State) -> None:
    for _, parts in _matching(names[0], old):
        pairs = {
            _filled(name, parts): _filled(other, parts) for name, other in zip(names, others, strict=True)
        }
        if pairs.keys() <= old.keys():
            new.update((other, old.pop(name)) for name, other in pairs.items())


def _filled(template: str, parts: dict[str, str]) -> str:
    for field, text in parts.items():
        template = template.replace("{" + field + "}", text)
    return template


def _listed(names: Sequence[str] | State, most: int = 5) -> str:
    names = sorted(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
