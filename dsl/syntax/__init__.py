"""From text to typed graphs: `parse` makes the AST, `elaborate` gives it meaning.

    ast          one frozen dataclass a grammar rule        layout, parse, build, messages   text to AST
    values       what names and expressions stand for       program      what commands and training become
    expressions  expressions to nodes                       binding      `with` and `over`: the rank rule
    elaborate    statements, in order, all errors in one go
"""
