"""What one lane computes: scalar expressions over instructions that every code generator can print.

    expr            constants, names, loads, and instructions applied to them
    instructions    one row an instruction: its meaning in NumPy, its spelling in LLVM and in CUDA C (`fused`: the meaning of fma)
    evaluate        expressions read as NumPy, on whole arrays

The mathematics of the op table's native code, straight-line and right for every operand:

    formats         the two float formats, polynomials, exponent moves        arithmetic     signs, conversions, division, integer powers
    exponential     exp, log and what is made of one of them                  powers         roots, hypot, pow
    trigonometric   sine, cosine, tangent and their inverses                  errorfunction  erf, erfc, erfcx, gelu
    gammafunction   lgamma, digamma, polygamma                                philox         random words, numbers, shuffles
"""
