"""The prompt in a terminal, and `lr repl` without one.

In: what is typed, pasted or piped.  Out: entries for the engine, and its results.  This module is loaded first: prompt_toolkit draws the
prompt, and only then the engine is loaded beside it; whatever needs the engine waits for it.
"""
from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from io import TextIOWrapper
from threading import Thread
from typing import TYPE_CHECKING, Any

from dsl.record import entity
from dsl.repl import reader
from dsl.repl.settings import Settings, from_file

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.buffer import Buffer
    from prompt_toolkit.formatted_text import StyleAndTextTuples
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    from dsl.repl.commands import Repl

LONGEST_SIZES = 4
"""Sizes that the toolbar names."""


@entity
class Options:
    """What the command line says."""

    file: str | None = None
    device: str | None = None
    precision: str | None = None
    seed: int | None = None
    threads: int | None = None


def main(options: Options) -> int:
    """The exit code: 1 if an entry of piped input failed, or a file that was named; in a terminal 0."""
    settings, remarks = from_file()
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return piped(options, settings, remarks)
    if os.environ.get("TERM", "").lower() in ("dumb", "unknown", ""):
        return plain(options, settings, remarks)
    return Prompt(options, settings, remarks).loop()


def engine(options: Options, settings: Settings, echo: bool = False) -> Repl:
    from dsl.repl.commands import Repl
    return Repl(sys.stdout, sys.stderr, settings=settings, device=options.device, precision=options.precision, seed=options.seed,
                threads=options.threads, echo=echo)


def quoted(path: str) -> str:
    return f':load "{path}"'


# ---------------------------------------------------------------- piped input
def piped(options: Options, settings: Settings, remarks: list[str]) -> int:
    """Entries without prompts.  One that fails does not keep the following from being run, but the exit code is 1."""
    repl = engine(options, settings)
    for line in remarks:
        repl.remark(line)
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="replace")        # what is not UTF-8 fails as an entry, at its place
    fine = repl.run(quoted(options.file)) if options.file else True
    for entry in reader.entries(sys.stdin):
        fine = repl.run(entry) and fine
        if repl.done:
            break
    sys.stdout.flush()
    return 0 if fine else 1


# ---------------------------------------------------------------- a terminal that only prints
def plain(options: Options, settings: Settings, remarks: list[str]) -> int:
    """The prompt on a terminal that cannot move its cursor: lines as the system edits them."""
    repl = engine(options, settings, echo=True)
    for line in remarks:
        repl.remark(line)
    if options.file:
        repl.run(quoted(options.file))
    from dsl.repl.commands import takes_entry
    held: list[str] = []
    while not repl.done:
        try:
            held.append(input(reader.CONTINUATION if held else reader.PROMPT))
        except EOFError:
            sys.stdout.write("\n")
            return 0
        except KeyboardInterrupt:
            sys.stdout.write("\n")
            held.clear()
            continue
        text = "\n".join(held)
        if reader.verdict(text, takes_entry) != "more":
            held.clear()
            repl.run(text)
    return 0


# ---------------------------------------------------------------- the prompt
class Prompt:
    """The prompt: what is typed is edited here, and run by the engine."""

    def __init__(self, options: Options, settings: Settings, remarks: list[str]) -> None:
        self.options, self.settings, self.remarks = options, settings, remarks
        self.loader: Thread | None = None
        self.loaded: Repl | None = None
        self.problem: BaseException | None = None
        self.pasted: tuple[str, list[str]] | None = None
        """A transcript's input as it stands in the buffer, and its entries."""
        self.absorbed = 0
        """Spaces of an indentation that was made, which typing them does not make again."""
        self.message = ""

    # ------------------------------------------------------------ the engine
    def load(self) -> None:
        try:
            import dsl.highlight
            repl = engine(self.options, self.settings, echo=True)
            import dsl.repl.completer
            import dsl.syntax.table
            dsl.syntax.table.load_table()
            self.loaded = repl
            self.session.app.invalidate()
        except BaseException as problem:
            self.problem = problem

    def start(self) -> None:
        """Loads the engine beside the prompt."""
        if self.loader is None:
            self.loader = Thread(target=self.load, daemon=True)
            self.loader.start()

    @property
    def repl(self) -> Repl:
        """The engine, once it is loaded.  Raises `LrError`."""
        self.start()
        assert self.loader is not None
        self.loader.join()
        if self.loaded is None:
            assert self.problem is not None
            raise self.problem
        return self.loaded

    # ------------------------------------------------------------ the loop
    def loop(self) -> int:
        import signal

        from dsl import __version__
        from dsl.errors import LrError
        signal.signal(signal.SIGTERM, self.terminated)
        out = sys.stdout
        out.write(f"lr {__version__}   :help explains, Ctrl-D leaves\n")
        out.writelines(line + "\n" for line in self.remarks)
        if self.options.file and not self.repl.run(quoted(self.options.file)):
            pass                                             # it has said why; the prompt is there to mend it
        while True:
            try:
                text = self.session.prompt()
            except KeyboardInterrupt:
                continue
            except EOFError:
                return 0
            entries = self.pasted[1] if self.pasted and self.pasted[0].strip() == text.strip() else [text]
            several, self.pasted = len(entries) > 1, None
            try:
                repl = self.repl
            except LrError as problem:
                sys.stderr.write(f"{problem}\n")
                return 2
            try:
                with unechoed():
                    for entry in entries:
                        if several:
                            out.write(reader.PROMPT + entry.replace("\n", "\n" + reader.CONTINUATION) + "\n")
                        repl.run(entry)
                        if repl.done:
                            return 0
            except KeyboardInterrupt:
                out.write("\n")
            self.follow(self.session)

    def terminated(self, number: int, frame: object) -> None:
        """Leaves with the terminal as it was found."""
        app, end = self.session.app, SystemExit(128 + number)
        if app.loop is None or not app.is_running:
            raise end
        app.loop.call_soon_threadsafe(lambda: app.exit(exception=end))

    @cached_property
    def session(self) -> PromptSession[str]:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
        from prompt_toolkit.cursor_shapes import ModalCursorShapeConfig
        from prompt_toolkit.filters import Condition
        from prompt_toolkit.styles import DynamicStyle, Style, merge_styles

        from dsl.repl.history import SavedHistory, history_path
        plain = Style([("bottom-toolbar", "noreverse fg:ansibrightblack"), ("bottom-toolbar.message", "fg:ansiyellow"),
                       ("auto-suggestion", "fg:ansibrightblack"), ("prompt", "bold"), ("continuation", "fg:ansibrightblack")])
        session: PromptSession[str] = PromptSession(
            [("class:prompt", reader.PROMPT)], multiline=True, prompt_continuation=[("class:continuation", reader.CONTINUATION)],
            history=SavedHistory(history_path()), auto_suggest=AutoSuggestFromHistory(), enable_history_search=True,
            lexer=highlighter(self), completer=completer(self), complete_in_thread=True, complete_while_typing=False,
            key_bindings=self.keys(), bottom_toolbar=self.toolbar, include_default_pygments_style=False, enable_suspend=True,
            enable_open_in_editor=True, tempfile_suffix=".lr", reserve_space_for_menu=6, cursor=ModalCursorShapeConfig(),
            style=DynamicStyle(lambda: merge_styles([plain, *self.theme()])))
        session.default_buffer.complete_while_typing = Condition(lambda: self.settings.completion == "typing")
        session.app.after_render += lambda _: self.start()
        self.follow(session)
        return session

    def follow(self, session: PromptSession[str]) -> None:
        """The settings as they are now."""
        from prompt_toolkit.enums import EditingMode
        from prompt_toolkit.output import ColorDepth

        from dsl.colors import wants_color
        session.editing_mode = EditingMode.VI if self.settings.keys == "vi" else EditingMode.EMACS
        colored = self.settings.colors != "never" and (self.settings.colors == "always" or wants_color(sys.stdout))
        session.color_depth = None if colored else ColorDepth.DEPTH_1_BIT

    def theme(self) -> list[Any]:
        """The style of highlighted text, once the lexer is there."""
        if self.loaded is None or self.settings.theme == "none":
            return []
        from prompt_toolkit.styles.pygments import style_from_pygments_cls

        from dsl import highlight
        match self.settings.theme:
            case "dark":
                return [style_from_pygments_cls(highlight.LrDark)]
            case "light":
                return [style_from_pygments_cls(highlight.LrLight)]
            case _:
                return [style_from_pygments_cls(highlight.LrEither)]

    # ------------------------------------------------------------ below the prompt
    def toolbar(self) -> StyleAndTextTuples:
        if self.message:
            return [("class:bottom-toolbar.message", " " + self.message)]
        repl = self.loaded
        if repl is None:
            return [("", " …")]
        buffer = self.session.default_buffer
        signature = self.signature(repl, buffer) if "(" in buffer.text else None
        if signature:
            before, now, after = signature
            return [("", f" {before}"), ("bold", now), ("", after)]
        return [("", " " + " · ".join(figures(repl)))]

    def signature(self, repl: Repl, buffer: Buffer) -> tuple[str, str, str] | None:
        """Of the call that the cursor stands in: before, at and after the argument that is typed."""
        try:
            from dsl.repl.signature import signature_parts
            return signature_parts(repl.session, buffer.text, buffer.cursor_position)
        except Exception:                                    # as for the menu
            if "LR_TRACEBACK" in os.environ:
                raise
            return None

    # ------------------------------------------------------------ keys
    def keys(self) -> KeyBindings:
        from prompt_toolkit.application import get_app
        from prompt_toolkit.enums import DEFAULT_BUFFER
        from prompt_toolkit.filters import Condition, emacs_insert_mode, has_focus, has_selection, vi_insert_mode
        from prompt_toolkit.key_binding import KeyBindings
        from prompt_toolkit.keys import Keys
        bindings = KeyBindings()
        editing = has_focus(DEFAULT_BUFFER) & (emacs_insert_mode | vi_insert_mode)

        def typed() -> Buffer:
            return get_app().current_buffer

        def chosen() -> bool:
            state = typed().complete_state
            return state is not None and state.current_completion is not None

        @bindings.add("enter", filter=has_focus(DEFAULT_BUFFER) & ~has_selection)
        def _(event: KeyPressEvent) -> None:
            self.enter(event.current_buffer)

        @bindings.add("escape", "enter", filter=has_focus(DEFAULT_BUFFER) & emacs_insert_mode)
        def _(event: KeyPressEvent) -> None:
            self.new_line(event.current_buffer)

        indented = Condition(lambda: self.absorbed > 0 and not typed().document.current_line_before_cursor.strip())

        @bindings.add(" ", filter=editing & indented)
        def _(event: KeyPressEvent) -> None:
            self.absorbed -= 1

        @bindings.add("tab", filter=editing)
        def _(event: KeyPressEvent) -> None:
            self.tab(event.current_buffer)

        open_menu = Condition(lambda: typed().complete_state is not None and not chosen())

        @bindings.add("up", filter=editing & open_menu)
        def _(event: KeyPressEvent) -> None:
            event.current_buffer.cancel_completion()
            event.current_buffer.auto_up()

        @bindings.add(Keys.BracketedPaste)
        def _(event: KeyPressEvent) -> None:
            self.paste(event.current_buffer, event.data)
        return bindings

    def enter(self, buffer: Buffer) -> None:
        """Runs what is complete; otherwise, and above the last line, a new line."""
        self.message = ""
        if buffer.complete_state is not None and buffer.complete_state.current_completion is not None:
            buffer.complete_state = None
            return
        if not buffer.text.strip():
            buffer.reset()
            return
        if buffer.document.text_after_cursor.strip() and "\n" in buffer.document.text_after_cursor:
            self.new_line(buffer)
            return
        from dsl.repl.commands import takes_entry
        match reader.verdict(buffer.text, takes_entry):
            case "run":
                buffer.validate_and_handle()
            case "text":
                self.message = 'a text is not closed: `"` is missing'
            case _:
                self.new_line(buffer)

    def new_line(self, buffer: Buffer) -> None:
        before = buffer.document.text_before_cursor
        indent = reader.indentation(before)
        buffer.insert_text("\n" + indent)
        self.absorbed = len(indent)

    def tab(self, buffer: Buffer) -> None:
        from dsl.repl import greek
        line = buffer.document.current_line_before_cursor
        letter = greek.replaced(line)
        if letter is not None:
            start, text = letter
            buffer.delete_before_cursor(len(line) - start)
            buffer.insert_text(text)
        elif not line.strip() and "\n" in buffer.text:
            buffer.insert_text(reader.INDENT)
        elif buffer.complete_state is not None:
            buffer.complete_next()
        else:
            buffer.start_completion(insert_common_part=True)

    def paste(self, buffer: Buffer, data: str) -> None:
        """Pasted text stands in the entry, and Enter runs it; of a transcript what had been typed."""
        text = data.replace("\r\n", "\n").replace("\r", "\n")
        entries = reader.transcript(text)
        if entries is not None and not buffer.text.strip():
            text = "\n".join(entries) + "\n"
            self.pasted = text, entries
            self.message = f"a transcript: what was typed in it, {len(entries)} {'entry' if len(entries) == 1 else 'entries'}"
        buffer.insert_text(text)


@contextmanager
def unechoed() -> Iterator[None]:
    """What is typed while an entry runs waits for the next prompt, and does not stand in the middle of what is drawn."""
    try:
        import termios
    except ImportError:                                      # not a system of that kind
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    quiet = list(before)
    quiet[3] = before[3] & ~termios.ECHO
    termios.tcsetattr(sys.stdin, termios.TCSANOW, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSANOW, before)


def figures(repl: Repl) -> list[str]:
    """What the toolbar says of a session: device, precision, sizes, memory, the last time."""
    from dsl.runtime.profile import amount
    elaborator = repl.session.elaborator
    sizes = [f"{name} = {value}" for name, value in repl.session.sizes().items()]
    shown = ", ".join(sizes[:LONGEST_SIZES]) + (" …" if len(sizes) > LONGEST_SIZES else "")
    parts = [elaborator.device, elaborator.precision, shown, amount(repl.memory()), gpu_memory(repl)]
    if repl.took.compile + repl.took.run:
        parts.append(str(repl.took))
    return [part for part in parts if part]


def gpu_memory(repl: Repl) -> str:
    """What is in use on the GPU, if one is."""
    from dsl.backends.cuda.memory import Live
    from dsl.runtime.profile import amount
    return f"GPU {amount(Live.bytes)}" if repl.session.compute.gpu.in_use else ""


def highlighter(prompt: Prompt) -> Any:
    from prompt_toolkit.document import Document
    from prompt_toolkit.lexers import Lexer

    class Highlight(Lexer):
        """Colours once the language's lexer is loaded."""

        inner: Lexer | None = None

        def lex_document(self, document: Document) -> Callable[[int], StyleAndTextTuples]:
            if prompt.loaded is None or prompt.settings.theme == "none":
                return lambda number: [("", document.lines[number])] if number < len(document.lines) else []
            if self.inner is None:
                from prompt_toolkit.lexers import PygmentsLexer

                from dsl.highlight import LrLexer
                self.inner = PygmentsLexer(LrLexer, sync_from_start=True)
            return self.inner.lex_document(document)

        def invalidation_hash(self) -> object:
            return prompt.loaded is None, prompt.settings.theme
    return Highlight()


def completer(prompt: Prompt) -> Any:
    from prompt_toolkit.completion import Completer

    class Loaded(Completer):
        """The engine's completions once it is there."""

        inner: Completer | None = None

        def get_completions(self, document: Any, complete_event: Any) -> Any:
            if prompt.loaded is None:
                return
            try:
                if self.inner is None:
                    from dsl.repl.completer import LrCompleter
                    self.inner = LrCompleter(lambda: prompt.repl.session)
                yield from self.inner.get_completions(document, complete_event)
            except Exception:                                # a menu that is missing must not keep anybody from typing
                if "LR_TRACEBACK" in os.environ:
                    raise
    return Loaded()


def interactive() -> bool:
    """Whether `lr` alone has somebody or something to read from: a terminal, or a pipe or file that holds something."""
    if sys.stdin is None or sys.stdin.closed:
        return False
    if sys.stdin.isatty():
        return sys.stdout.isatty()
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError):
        return False
    from stat import S_ISFIFO, S_ISREG, S_ISSOCK
    if not (S_ISFIFO(mode) or S_ISREG(mode) or S_ISSOCK(mode)):
        return False
    peek = getattr(sys.stdin.buffer, "peek", None)
    return bool(peek and peek(1))
