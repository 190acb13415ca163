"""Where a run happened: versions, devices and the commit, for its record."""

import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jax

import eelbert_jax


def environment() -> dict[str, Any]:
    """Return versions, devices, processes and, of a checkout, the commit."""
    return {
        "eelbert_jax": eelbert_jax.__version__,
        "commit": _commit(Path(eelbert_jax.__file__).parents[1]),
        "jax": jax.__version__,
        "python": platform.python_version(),
        "devices": [device.device_kind for device in jax.devices()],
        "processes": jax.process_count(),
    }


def _commit(checkout: Path) -> str | None:
    """Return the commit of the project's own checkout, with "+" if files differ from it; None elsewhere."""
    if not (checkout / ".git").exists() or shutil.which("git") is None:
        return None
    git = ["git", "-C", str(checkout)]
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    changes = subprocess.run(
        [*git, "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True, check=False
    )
    return head.stdout.strip() + ("+" if changes.stdout.strip() else "") or None
