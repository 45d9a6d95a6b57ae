"""`lr bench`: the same work in this language and in what a user would run instead, timed side by side.

    work      the table of work: sizes, targets, tolerances
    data      the arrays every side is given
    expected  what the work on a GPU comes to, by NumPy
    peers/    one module a system, this language (`ours`) and the C limit (`c`) among them
    worker    a peer in a process of its own, spoken to in lines
    start     whole processes: from the shell to the first result
    measure   checks, then times: round robin over the workers, medians with quartiles
    report    the table, the JSON file, the plot
    command   what `lr bench` does

A peer's worker may run under another interpreter that has neither this package nor its dependencies installed, so the
modules it loads (`work`, `data`, `worker`, `peers`) import from outside only NumPy and the peer itself.
"""
