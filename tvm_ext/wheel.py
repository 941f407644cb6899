"""How a wheel is built: as setuptools does, and with the .pth file by which plain `tvmc` finds the NPU."""

from __future__ import annotations

import runpy
from pathlib import Path

from setuptools.command.build_py import build_py

# While a wheel is built, nothing of it can be imported.
_HOOK = runpy.run_path(str(Path(__file__).with_name("tvmc_hook.py")))


class BuildWithHook(build_py):  # type: ignore[misc]
    """Puts the file beside the packages, where Python looks for it."""

    def run(self) -> None:
        """The packages, then the file."""
        super().run()
        if not self.editable_mode:
            self._hook.write_text(_HOOK["PTH_LINE"])

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """What is to be removed when the wheel is uninstalled."""
        outputs: list[str] = super().get_outputs(include_bytecode)
        return outputs if self.editable_mode else [*outputs, str(self._hook)]

    @property
    def _hook(self) -> Path:
        return Path(self.build_lib) / str(_HOOK["PTH_NAME"])
