"""MNIST from scratch: the library that the notebooks in `nbs/` export."""

__version__ = "0.2.0"
