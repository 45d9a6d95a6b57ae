"""Graph to graph: each pass takes nodes and gives nodes of the same types.

    batch          one more leading axis: the rank rule and Jacobians
    rewrite, rules simplification and stabilisation, rules as data
    fold           constants evaluated
    grad           derivative ops written out, reverse mode with live masks (`masks`)
    guard          lanes that `where` does not take made unable to fault
    loops          what bodies of loops capture; formulas moved into them and out of them
    adjoint        the reverse sweep of a loop; `segments`: of a long one
    shield         loops in branches not taken
"""
