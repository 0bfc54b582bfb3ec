"""Stopping on request: the first signal asks, the second insists."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from torch import nn

from pretune.errors import Interrupted

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Within this context SIGINT and SIGTERM set ``asked``; a second one ends the process as usual.

    Args:
        insists: False: a second one only asks again. torchrun passes on what a terminal sent already.
    """

    def __init__(self, *, insists: bool = True) -> None:
        self.asked = False
        self._insists = insists
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._previous = {s: signal.signal(s, self._ask) for s in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    @contextmanager
    def leaving(self, network: nn.Module, message: str) -> Iterator[None]:
        """Within, work that calls ``network`` batch by batch is left between two of them.

        Raises:
            Interrupted: with ``message``; a stop was asked for.
        """

        def look(module: nn.Module, inputs: Any) -> None:
            if self.asked:
                raise Interrupted(message)

        handle = network.register_forward_pre_hook(look)
        try:
            yield
        finally:
            handle.remove()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        if self._insists:
            self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
