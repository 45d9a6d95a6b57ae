"""One module a system.  Each has

    TABLE       column → entry of the work → a function from the given arrays to a `Prepared`
    versions    what is installed, by name; ImportError without the system
    configure   device and threads, before the work is prepared

and imports its system where it is used, so that a table can be read without it.
"""
