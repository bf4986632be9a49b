"""raysd: which ingredient of an anomalous-sound detector helps, by how much, on which machines, and how sure are we?"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raysd.notebook import Results, Study

__all__ = ["Results", "Study"]


def __getattr__(name: str) -> Any:
    """The words of a notebook, loaded when they are first asked for: every command imports this package."""
    if name in __all__:
        from raysd import notebook

        return getattr(notebook, name)
    raise AttributeError(f"module 'raysd' has no attribute '{name}'")
