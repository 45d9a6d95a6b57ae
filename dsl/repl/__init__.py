"""The interactive session: `lr` alone, `lr repl`.

    reader        what was typed: pieces, whether it is complete, pasted transcripts, piped entries
    state         what an entry may change, to put it back
    engine        `Repl`: one entry in, its output on streams; knows no terminal
    commands      `:help`, `:type`, … on the engine
    transcript    what worked so far as a script
    settings      what `:set` changes, and the file it may stand in
    history       entries of earlier sessions
    complete, greek, display, curve      completion, letters, how values and trainings are shown
    app           the prompt in a terminal; the only one that loads prompt_toolkit, and the first to be loaded
"""
