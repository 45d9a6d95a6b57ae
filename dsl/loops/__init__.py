"""Loop programs: what a graph becomes before it is compiled.

    ir, text, verify          statements, kernels, programs; their text form; what must hold of them
    legalise                  graphs in the few ops that have loops
    element                   one element of a graph as an expression
    task, fuse, tidy          what is computed, in as few loops as its order allows, without what nobody needs
    shuffle, order            random orders, sorting
    control, lower            loops of the language, graphs to statements
    evaluate, train           whole programs: of graphs, of a training loop
    cost                      what a program costs, in its sizes
    scalar_python, python_code, interpret     programs run slowly, in Python, and watched
"""
