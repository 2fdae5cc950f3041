"""Exceptions of others in one line."""

__all__ = ["first_line", "is_out_of_memory"]

ALLOCATING = ("can't allocate memory", "out of memory", "Storage size calculation overflowed")
"""What torch says of tensors that are too large; on the CPU the exception is a mere RuntimeError."""


def first_line(error: BaseException) -> str:
    """The first line of what an exception says, or its type where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether there is too little memory for what was asked for."""
    said = isinstance(error, RuntimeError) and any(words in str(error) for words in ALLOCATING)
    return said or isinstance(error, MemoryError)
