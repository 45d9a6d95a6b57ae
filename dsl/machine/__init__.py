"""What one lane computes: scalar expressions over instructions that every code generator can print.

    expr           constants, names, loads, and instructions applied to them
    instructions   one row an instruction: its meaning in NumPy, its spelling in LLVM and in CUDA C
"""
