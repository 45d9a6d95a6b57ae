"""Graph to graph: each pass takes nodes and gives nodes of the same types.

    batch          one more leading axis: the rank rule and Jacobians
    rewrite, rules simplification and stabilisation, rules as data
    fold           constants evaluated
    grad           derivative ops written out, reverse mode with live masks
    guard          lanes that `where` does not take made unable to fault
"""
