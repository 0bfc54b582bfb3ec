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
        exit_on_second: False: a second one only asks again. torchrun passes on what a terminal sent already.
    """

    def __init__(self, *, exit_on_second: bool = True) -> None:
        self.should_stop = False
        self._exit_on_second = exit_on_second
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._previous = {s: signal.signal(s, self._handle_signal) for s in _SIGNALS}
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore_handlers()

    @contextmanager
    def stop_between_batches(self, network: nn.Module, message: str) -> Iterator[None]:
        """Within, work that calls ``network`` batch by batch is left between two of them.

        Raises:
            Interrupted: with ``message``; a stop was asked for.
        """

        def hook(module: nn.Module, inputs: Any) -> None:
            if self.should_stop:
                raise Interrupted(message)

        handle = network.register_forward_pre_hook(hook)
        try:
            yield
        finally:
            handle.remove()

    def _handle_signal(self, number: int, frame: FrameType | None) -> None:
        self.should_stop = True
        if self._exit_on_second:
            self._restore_handlers()

    def _restore_handlers(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
