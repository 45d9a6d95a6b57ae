"""Ctrl-C while steps are made.

In: the signal.  Out: a flag that is looked at between whole steps, so that the state is always that of one.
"""
from __future__ import annotations

import signal
import threading
from types import FrameType


class InterruptFlag:
    """Turns Ctrl-C into a flag that is looked at between whole steps; a second one ends what it meets, but for what is `held`: the
    steps of a burst, which are counted only after it, and the taking over of a step's results."""

    raised = held = False

    def __enter__(self) -> InterruptFlag:
        self.active = threading.current_thread() is threading.main_thread()
        if self.active:
            def handler(number: int, frame: FrameType | None) -> None:
                if self.raised and not self.held:
                    raise KeyboardInterrupt
                self.raised = True
            self.before = signal.signal(signal.SIGINT, handler)
        return self

    def __exit__(self, *_: object) -> None:
        if self.active:
            signal.signal(signal.SIGINT, self.before)
