"""``python -m tvm_ext.cli`` is ``npuc``."""

from __future__ import annotations

from tvm_ext.cli.app import main

if __name__ == "__main__":
    main()
