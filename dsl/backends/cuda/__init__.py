"""Programs on CUDA devices.

    spelling    literals, names and operators of CUDA C            prelude   the helper functions a source may need
    expressions expressions to C, what is used twice named once    statements  the statements of a kernel
    source      kernels: one `__global__` function each            parameters  what such a function is given
    nvrtc       source to cubin, without a driver                  shim      the same source run on the CPU, thread by thread
    flat        loops over rows and columns become one             serial      serial statements that touch arrays become kernels
    runs        how kernels with totals are cut, whatever the grid launch      what the driver asks of a device
    device      a CUDA device, through CuPy
    driver      a whole program: the host's statements, and kernels launched on a device (or on the shim)
"""
