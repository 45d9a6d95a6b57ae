"""What the documentation takes from the program itself, written as Markdown when a build begins.

In: the op table, the error index, the library of optimisers, the command line, the examples, the benchmarks' latest results.
Out: pages below `docs/_generated`, which the other pages include, and the highlighting of `lr` blocks.  A page is written anew only
if it changed, so that a second build does only what is left to do."""
from __future__ import annotations

import base64
import io
import json
import re
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
OUT = ROOT / "docs" / "_generated"


def setup(app: Any) -> dict[str, Any]:
    from pygments.lexers.special import TextLexer
    from pygments.token import Error, Generic

    from dsl.highlight import LrLexer

    class Lenient(LrLexer):
        """Scripts that are wrong are shown too; what is wrong in them is marked."""

        def get_tokens_unprocessed(self, text: str, *more: Any) -> Any:
            for place, kind, value in super().get_tokens_unprocessed(text, *more):
                yield place, Generic.Error if kind is Error else kind, value

    class Prompt(Lenient):
        """What was typed at the prompt, and what it showed."""

        def get_tokens_unprocessed(self, text: str, *more: Any) -> Any:
            place = 0
            for line in text.splitlines(keepends=True):
                prompt = re.match(r"lr> ?|\.\.\. ?", line)
                if prompt is None:
                    yield place, Generic.Output, line
                else:
                    yield place, Generic.Prompt, prompt[0]
                    for inner, kind, value in super().get_tokens_unprocessed(line[prompt.end():], *more):
                        yield place + prompt.end() + inner, kind, value
                place += len(line)

    app.add_lexer("lr", Lenient)
    app.add_lexer("repl", Prompt)
    for name in ("form", "csv"):
        app.add_lexer(name, TextLexer)
    app.connect("builder-inited", lambda _: generate())
    app.connect("autodoc-process-docstring", docstring)
    app.connect("source-read", names_of_files)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def generate() -> None:
    pages = {"functions.md": functions(), "statements.md": statements(), "errors.md": errors(), "optimizers.md": optimizers(),
             "commands.md": commands(), "prompt.md": prompt(), "speed.md": speed(), "gpu-speed.md": gpu_speed(),
             **gallery(), **notebook()}
    for name, text in pages.items():
        place = OUT / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(text, bytes):
            if not place.exists() or place.read_bytes() != text:
                place.write_bytes(text)
        elif not place.exists() or place.read_text(encoding="utf-8") != text:
            place.write_text(text, encoding="utf-8")
    for place in OUT.rglob("*.*"):
        if str(place.relative_to(OUT)) not in pages:
            place.unlink()


def names_of_files(app: Any, page: str, source: list[str]) -> None:
    """What is to be saved under a name has it above it; what is to be compared stands side by side.

    Both are comments, so that the pages read well as they are, too."""
    for mark, container in (("side", ":::::{container} side\n\n::::{container}"), ("beside", "::::\n\n::::{container}"),
                            ("/side", "::::\n\n:::::")):
        source[0] = source[0].replace(f"<!-- {mark} -->\n", f"{container}\n")
    source[0] = re.sub(r"<!-- file (\S+) -->\n", r"```{raw} html\n<div class='filename'>\1</div>\n```\n\n", source[0])


def docstring(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """A docstring of this code as reStructuredText: code in single backticks, tables of names and words, indented code."""
    found: list[str] = []
    for block in re.split(r"\n(?:[ ]*\n)+", "\n".join(lines).strip("\n")):
        rows = block.split("\n")
        if re.match(r"\s*\S.*?\S\s{3,}\S", rows[0]) and (len(rows) == 1 or all(re.match(r"\s*\S.*\s{3,}\S|\s{4,}", r) for r in rows)):
            for row in rows:
                head = re.match(r"(?:    )?(\S.*?)\s{3,}(\S.*)$", row)
                found += [f"``{head[1]}``", f"    {marked(head[2])}"] if head else ["    " + marked(row.strip())]
        elif rows[0].startswith("    "):
            found += ["::", "", *rows]
        else:
            found.append(marked(block))
        found.append("")
    lines[:] = "\n".join(found).split("\n")


def marked(text: str) -> str:
    """Code in double backticks, which a letter may follow."""
    return re.sub(r"(?<!`)`([^`]+)`(?!`)(\w?)", lambda m: f"``{m[1]}``" + (f"\\ {m[2]}" if m[2] else ""), text)


def fence(language: str, text: str) -> str:
    return f"```{language}\n{text.rstrip()}\n```\n"


# ---------------------------------------------------------------- the reference
def functions() -> str:
    """Every function, by group, each with an example and what it prints."""
    from dsl.help import function_groups
    from dsl.ops.functions import LATER
    parts = []
    for group, topics in function_groups().items():
        parts.append(f"## {GROUPS.get(group, group[0].upper() + group[1:])}\n")
        parts.extend(page_of(topic, "function", "###") for topic in sorted(topics, key=lambda topic: topic.name))
    parts.append("## Not in this version\n\nThese are known to the language, and answered with E0801: "
                 + ", ".join(f"`{name}`" for name in sorted(LATER)) + ".\n")
    return "\n".join(parts)


GROUPS = {"element-wise": "Element by element", "row-wise": "Along an axis", "reduction": "Reductions", "loop": "Loops with state",
          "shape": "Shapes", "loss": "Losses", "random": "Random draws", "derivative": "Derivatives", "conversion": "Conversions",
          "linear algebra": "Linear algebra", "data": "Data"}


def page_of(topic: Any, prefix: str, heading: str) -> str:
    """A topic of the program's own help as Markdown."""
    forms = fence("lr", "\n".join(topic.forms))
    parts = [f"({prefix}-{topic.name})=\n{heading} {topic.name}\n", forms, f"{topic.summary}\n"]
    if topic.details:
        parts.append("\n".join(f"- *{label}*: {words}" for label, words in topic.details) + "\n")
    if topic.example is not None:
        parts.append(fence("lr", topic.example.code))
        if topic.example.prints.strip():
            parts.append(fence("text", topic.example.prints))
    if topic.see_also:
        parts.append("See also " + ", ".join(f"`{name}`" for name in topic.see_also) + ".\n")
    return "\n".join(parts)


def statements() -> str:
    """Every keyword."""
    from dsl.help import keyword_topic
    from dsl.syntax.manual import MANUAL
    seen, parts = set(), []
    for word, entry in MANUAL.items():
        if id(entry) not in seen:
            seen.add(id(entry))
            parts.append(page_of(keyword_topic(word), "keyword", "##"))
    return "\n".join(parts)


def errors() -> str:
    """Every error code, with its example, what is printed, and the example put right."""
    from dsl.error_index import ENTRIES
    stages = {"E01": "Form", "E02": "Shapes and dtypes", "E03": "Names", "E04": "Derivatives, updates and training",
              "E05": "Calls and statements", "E06": "Data and files", "E07": "While running", "E08": "Not in this version, or not here",
              "E09": "Usage"}
    parts, stage = [], ""
    for code, entry in sorted(ENTRIES.items()):
        if stages[code[:3]] != stage:
            stage = stages[code[:3]]
            parts.append(f"## {stage}\n")
        parts.append(f"({code.lower()})=\n### {code}: {entry.title}\n\n{entry.text}\n")
        for name, content in entry.files.items():
            if isinstance(content, str):
                parts.append(f"With the file `{name}`:\n\n" + fence("text", content))
        if entry.kind != "none":
            language = "lr" if entry.kind == "script" else "python"
            parts.append("Wrong:\n\n" + fence(language, entry.example))
            shown = complaint(entry) if entry.kind == "script" else ""
            if shown:
                parts.append(fence("text", shown))
            parts.append("Right:\n\n" + fence(language, entry.fix))
    return "\n".join(parts)


def complaint(entry: Any) -> str:
    """What the example of an error prints."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in entry.files.items():
            (Path(folder) / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return ran(entry.example, Path(folder), Path(folder), "example.lr")[1].replace(folder + "/", "")


def optimizers() -> str:
    """The library of optimisers, each with the comment above it."""
    text = (ROOT / "dsl" / "library" / "optim.lr").read_text(encoding="utf-8")
    parts = []
    for comment, source, name in re.findall(r"^((?:#.*\n)+)(optimizer (\w+)[\s\S]*?)(?=^\n|\Z)", text, re.M):
        words = " ".join(line.lstrip("# ") for line in comment.splitlines())
        parts.append(f"### {name}\n\n{words}\n\n" + fence("lr", source))
    return "\n".join(parts)


def commands() -> str:
    """Every command with its own help."""
    import click

    from dsl.cli import commands as group
    context = click.Context(group, info_name="lr", terminal_width=96, max_content_width=96)
    parts = ["## lr\n", fence("text", group.get_help(context))]
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        inner = click.Context(command, info_name=name, parent=context, terminal_width=96, max_content_width=96)
        parts += [f"(command-{name})=\n## lr {name}\n", fence("text", command.get_help(inner))]
    return "\n".join(parts)


def prompt() -> str:
    """The commands of the interactive session."""
    from dsl.repl.commands import COMMANDS
    rows = ["| command | does |", "|---|---|"]
    for word, command in COMMANDS.items():
        usage = f":{word} {command.usage}".rstrip().replace("|", "\\|")
        rows.append(f"| `{usage}` | {command.summary} |")
    return "\n".join(rows) + "\n"


# ---------------------------------------------------------------- what runs
def ran(text: str, base: Path, out: Path, name: str) -> tuple[str, str]:
    """What a script prints, and its diagnostics."""
    import dsl
    from dsl.errors import LrError, Source
    printed = io.StringIO()
    session = dsl.Session(base=base, out=out, stdout=printed, quiet=True)
    session.comparing = True
    try:
        session.load(Source(name, text))
        session.run()
        problems = session.failures
    except LrError as problem:
        problems = list(problem.diagnostics)
    return printed.getvalue(), "\n\n".join(d.render(False) for d in problems)


PLAIN = {"multiply": "A function of two numbers, the first of the tutorial",
         "linear_regression": "A line through points with noise, one at a time: the script of the front page"}
"""What the shortest ones show, whose first line is only their name."""


def gallery() -> dict[str, str | bytes]:
    """A page for each example: what it is, its code, what it prints, what it draws."""
    pages: dict[str, str | bytes] = {}
    entries = []
    for path in sorted((ROOT / "examples").glob("*.lr")):
        text = path.read_text(encoding="utf-8")
        with tempfile.TemporaryDirectory() as folder:
            shown, problems = ran(text, path.parent, Path(folder), path.name)
            assert not problems, f"{path.name}:\n{problems}"
            pictures = [(f"gallery/{path.stem}-{p.name}", p.read_bytes()) for p in sorted(Path(folder).glob("*.png"))]
        comment = re.match(r"(?:#.*\n)+", text)
        words = " ".join(line.lstrip("# ") for line in comment[0].splitlines()) if comment else ""
        words = words.removeprefix(path.name).lstrip(": ") or PLAIN[path.stem]
        title = path.stem.replace("_", " ").capitalize().replace("Mlp", "MLP")
        entries.append((path.stem, title, words))
        pages.update(pictures)
        images = "".join(f"![{title}]({Path(name).name})\n\n" for name, _ in pictures)
        pages[f"gallery/{path.stem}.md"] = (
            f"# {title}\n\n{sentence(words)}\n\n{images}" + fence("lr", text) + "\nIt prints:\n\n" + fence("text", shown)
            + f"\n`lr run examples/{path.name}` runs it, and `lr test examples/{path.name}` checks its last lines.\n")
    lines = ["| example | what it shows |", "|---|---|"]
    lines += [f"| [{title}](../_generated/gallery/{stem}.md) | {sentence(words)} |" for stem, title, words in entries]
    pages["gallery.md"] = "\n".join(lines) + "\n"
    return pages


def sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}" + ("." if words and words[-1] not in ".!?" else "")


# ---------------------------------------------------------------- the notebook
def notebook() -> dict[str, str | bytes]:
    """`examples/notebook.ipynb` with the outputs that are stored in it, which the tests hold to be what it shows."""
    pages: dict[str, str | bytes] = {}
    parts = []
    for number, cell in enumerate(json.loads((ROOT / "examples" / "notebook.ipynb").read_text(encoding="utf-8"))["cells"]):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(re.sub(r"^# .*\n+", "", source) + "\n")
            continue
        parts.append(fence("lr" if source.startswith("%%lr") else "python", source))
        for place, output in enumerate(cell["outputs"]):
            data = output.get("data", {})
            if "image/png" in data:
                name = f"notebook-{number}-{place}.png"
                pages[name] = base64.b64decode("".join(data["image/png"]))
                parts.append(f"![plot](../_generated/{name})\n")
            elif "text/html" in data:
                parts.append("```{raw} html\n<div class=\"notebook\">" + "".join(data["text/html"]) + "</div>\n```\n")
            else:
                text = "".join(output.get("text", data.get("text/plain", ""))) or "\n".join(output.get("traceback", ""))
                parts.append(fence("text", re.sub(r"\x1b\[[0-9;]*m", "", text)))
    pages["notebook.md"] = "\n".join(parts)
    return pages


# ---------------------------------------------------------------- speed
def gpu_speed() -> str:
    """That of a GPU, with its link as a file of the repository."""
    from speed_table import gpu_table
    return on_a_page(re.sub(r"\[(`[^`]+`)\]\(([^)]+)\)", r"`\2`", gpu_table()))


def on_a_page(text: str) -> str:
    return text.replace("the script above", "the script of the front page")


def speed() -> str:
    """The table of the README, from `benchmarks/latest.json`."""
    from speed_table import table
    return on_a_page(table())
