"""Loop programs as native code on the CPU, through LLVM.

    Program ─ module.py → LLVM IR ─ engine.py → object code ─ cache.py → disk ─ native.py → called with NumPy arrays
"""
