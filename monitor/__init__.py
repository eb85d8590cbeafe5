"""The long-running daemon: news from a log in, scored documents, windows, metrics and incidents out."""

from importlib.metadata import version

__all__ = ["__version__"]


def __getattr__(name: str) -> str:
    """`__version__` is read from the installed distribution, only when asked for."""
    if name == "__version__":
        return version("bellwether")
    raise AttributeError(name)
