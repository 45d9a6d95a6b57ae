"""Loop programs: what a graph becomes before it is compiled.

    ir           statements, kernels, programs
    legalise     graphs in the few ops that have loops
    lower        fusion: graphs to programs
    text         programs as text                     interpret   programs run slowly, in Python
"""
