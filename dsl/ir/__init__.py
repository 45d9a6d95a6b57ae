"""The intermediate representation: element types, sizes and shapes (`types`), nodes (`node`), its text form (`text`).

    Graph  ::=  Node*                                (a directed acyclic graph; equal nodes are identical)
    Node   ::=  Op(Node, …; attr = value, …) : Type
    Type   ::=  dtype[Dim, …]
    Dim    ::=  polynomial over size variables and opaque atoms
"""
