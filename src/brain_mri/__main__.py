"""`brain-mri`: the project's commands where it is installed as a package."""

from __future__ import annotations

import os
from pathlib import Path

from kedro.framework.project import configure_project


def main() -> None:
    """Run a command of the group that `kedro` shows inside the project."""
    os.environ.setdefault(
        "KEDRO_DISABLE_TELEMETRY", "1"
    )  # hospital data: nothing is reported, wherever this runs
    configure_project(Path(__file__).parent.name)
    from brain_mri.cli import cli

    cli()


if __name__ == "__main__":
    main()
