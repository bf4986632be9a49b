"""`torchaudio`, also where its native part cannot load.

Its compiled library wants the CUDA libraries that it was built with. A torch without CUDA, or with another CUDA, lacks
them, and then even `import torchaudio` fails, though filter banks, resampling and Kaldi features are plain Python. So
the second attempt finds a stand-in where the module that loads the library would be. That module is private, hence the
exact pin on torchaudio's version.
"""

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


def _unavailable(function: Callable[..., Any]) -> Callable[..., Any]:
    """Stands for torchaudio's decorator of functions that need the native library."""

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError(f"{function.__name__} needs torchaudio's native library, which this torch cannot load")

    return fail


try:
    import torchaudio
except (OSError, RuntimeError):
    for _name in [name for name in sys.modules if name.split(".")[0] == "torchaudio"]:
        del sys.modules[_name]
    _stub = ModuleType("torchaudio._extension")
    _stub.__dict__.update(
        _IS_TORCHAUDIO_EXT_AVAILABLE=False,
        _IS_ALIGN_AVAILABLE=False,
        _check_cuda_version=lambda: None,
        fail_if_no_align=_unavailable,
    )
    sys.modules[_stub.__name__] = _stub
    import torchaudio

__all__ = ["torchaudio"]
