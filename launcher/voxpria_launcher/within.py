"""Run a Python module with an instance's settings: `python -m voxpria_launcher.within MODULE ARGUMENTS…`."""

import os
import sys

from voxpria_launcher.settings import Settings


def main() -> None:
    """Become the module, its environment that of the instance's own parts."""
    os.execve(sys.executable, [sys.executable, "-m", *sys.argv[1:]], Settings().environment())  # noqa: S606


if __name__ == "__main__":
    main()
