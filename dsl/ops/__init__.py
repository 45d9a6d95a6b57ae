"""The op table: everything a stage needs to know of an op stands in its row.

    scalar      element-wise primitives          shape      moving, selecting, joining, broadcasting
    composite   element-wise, defined by others  reduction  sums, extremes, norms, running totals, softmax
    linalg      products                         random     draws          calculus   derivatives as ops
    control     loops
    leaves      inputs and state                 functions  the built-in functions of the language (`build`: as nodes)
"""
from dsl.ops import calculus, composite, control, leaves, linalg, philox, random, reduction, scalar, shape  # noqa: F401
