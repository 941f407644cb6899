"""Makes plain `tvmc` offer the NPU: one line of a .pth file imports this at the start of Python.

It waits until somebody imports TVM's command line, which then gets `tvm_ext.tvmc.install`; until then nothing is
imported. `NPU_TVMC=0` in the environment switches it off. The wheel places the .pth file beside the packages, so that
it goes with them; for an editable install `python -m tvm_ext.tvmc_hook` does.
"""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder

# Neither typing nor importlib.abc, whose base classes a finder and a loader need not have: every start of Python pays.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

TVMC = "tvm.driver.tvmc"
PTH_NAME = "npu_backend_tvmc.pth"
PTH_LINE = 'import os; os.environ.get("NPU_TVMC") == "0" or __import__("tvm_ext.tvmc_hook").tvmc_hook.watch()\n'


class _Installing:
    """Runs a module as it would run without us, then the installation."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As the module's own loader does."""
        made: ModuleType | None = self._loader.create_module(spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        """The module, then ours."""
        self._loader.exec_module(module)
        from tvm_ext.tvmc import install  # noqa: PLC0415

        install()


class _Watch:
    """Finds nothing but TVM's command line, where any other finder would."""

    def find_spec(self, name: str, path: object = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The specification of `tvm.driver.tvmc` with our loader around its own; None for all other names."""
        if name != TVMC:
            return None
        spec = PathFinder.find_spec(name, path, target)  # type: ignore[arg-type]
        if spec is not None and spec.loader is not None:
            spec.loader = _Installing(spec.loader)  # type: ignore[assignment]
        return spec


def watch() -> None:
    """Starts waiting, once."""
    if not any(isinstance(finder, _Watch) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Watch())


def main() -> None:
    """Writes the .pth file where this Python looks for packages."""
    import sysconfig  # noqa: PLC0415
    from pathlib import Path  # noqa: PLC0415

    (Path(sysconfig.get_path("purelib")) / PTH_NAME).write_text(PTH_LINE)


if __name__ == "__main__":
    main()
