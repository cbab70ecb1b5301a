"""The errors that tinygen raises on purpose: each carries one paragraph that a person can act on."""


class TinygenError(Exception):
    """Something went wrong that the message explains: what, where, and what to do about it."""


class InputError(TinygenError, ValueError):
    """A value, shape, option or file that tinygen was given cannot be used."""
