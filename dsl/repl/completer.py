"""Completion at the prompt: `complete` as prompt_toolkit asks for it."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from prompt_toolkit.completion import CompleteEvent, Completer
from prompt_toolkit.completion import Completion as Item
from prompt_toolkit.document import Document

from dsl.repl.complete import complete

if TYPE_CHECKING:
    from dsl.session import Session


class LrCompleter(Completer):
    """Completions for the session that `session` gives at the time."""

    def __init__(self, session: Callable[[], Session]) -> None:
        self.session = session

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Item]:
        cursor = document.cursor_position
        automatic = complete_event.text_inserted and not complete_event.completion_requested
        for found in complete(self.session(), document.text, cursor, automatic):
            yield Item(found.text, found.start - cursor, display=found.display, display_meta=found.meta,
                       style=f"class:completion-kind.{found.kind}", selected_style=f"class:completion-kind.current.{found.kind}")
