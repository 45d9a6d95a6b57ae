"""Programs on CUDA devices.

    flat        loops over rows and columns become one           split      which loops the lanes of a warp share
    spelling    literals, names and operators of CUDA C          prelude    the helper functions a source may need
    expressions expressions to C, what is used twice named once  statements statements to C
    lanes       iterations that lanes share, neighbours by four  source     kernels: one `__global__` function each
    parameters  what such a function is given                    runs       how kernels with totals are cut, whatever the grid
    serial      serial statements that touch arrays become kernels          ahead      loops whose launches do not wait
    barriers    where a program that is one kernel waits         whole      a program as one kernel
    launch      what a device is asked for                       device     a CUDA device, through CuPy
    memory      arrays that lie on a device                      arrays     arrays of other libraries there
    driver      launches kernel by kernel, by the host           resident   a whole program launched
    staging     small arrays that go there in one copy
    choice      what each way takes, by estimate                 program    a program, in the way that takes least
    presence    whether there is a GPU, and if not, why          failures   what CUDA says, in our words
    nvrtc       source to cubin, without a driver                shim       the same source run on the CPU, thread by thread
"""
