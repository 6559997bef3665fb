"""Optional parts: what each is for, whether it is here, and the exact command that brings it."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import asdict, dataclass
from typing import Any

from salad.asset_table import ASSETS
from salad.assets import asset_dir, status
from salad.doctor.machine import has_microphone, has_portaudio
from salad.doctor.packages import extras, install_command, packages

EXTRAS = {
    "ray": "synthesis and checks on a Ray cluster (docs/many-machines.md)",
    "kokoro": "Kokoro's voices in PyTorch, for a GPU (docs/voices.md)",
    "kernels": "fused GPU kernels of Liger and TRL (docs/performance.md)",
    "serve": "salad serve: a server that OpenAI's clients talk to",
    "chat": "salad chat: a web page to talk to a model",
    "mic": "salad ask --mic: speaking into this machine's microphone",
    "docs": "make docs: these docs as a site",
    "dev": "tests, linter and type checker",
}
"""What each extra of pyproject.toml is for."""
PROGRAMS = (
    ("espeak-ng", ("espeak-ng",), "the espeak-ng voices", "espeak-ng"),
    ("flite", ("flite",), "the flite voices", "flite"),
    ("chromium", ("chromium", "chromium-browser", "google-chrome"), "browser tests of pages", "chromium"),
)
"""Name, what it may be called on the PATH, what it is for, Debian's package."""


@dataclass(frozen=True)
class Part:
    """One optional part; `command` brings it, `note` says what is lacking or to be done before."""

    name: str
    purpose: str
    present: bool
    command: str
    note: str = ""


def optional_parts() -> list[Part]:
    """Extras, programs, PortAudio and the microphone."""
    found = [_extra(name) for name in extras()]
    for name, called, purpose, package in PROGRAMS:
        present = any(shutil.which(program) for program in called)
        found.append(Part(name, purpose, present, _debian(package)))
    found.append(Part("portaudio", EXTRAS["mic"], has_portaudio(), _debian("libportaudio2"), "the extra mic needs it"))
    return [*found, _microphone()]


def _microphone() -> Part:
    listing = "arecord -l" if shutil.which("arecord") else f"{_debian('alsa-utils')} && arecord -l"
    note = "no device that records: plug one in, then list it"
    return Part("microphone", "speaking to a model", has_microphone(), listing, note)


def _extra(name: str) -> Part:
    lacking = [package.name for package in packages(name) if not package.fits]
    note = f"lacks {', '.join(lacking)}" if lacking else ""
    return Part(name, EXTRAS.get(name, f"the extra {name}"), not lacking, install_command(name), note)


def offline_assets() -> list[dict[str, Any]]:
    """The rows of `salad assets` that are fetched, with `state` (verified, not verified, not fetched) and `command`."""
    rows = []
    for row in status():
        if row.packaged:
            continue
        state = "verified" if row.verified else "not verified" if row.present else "not fetched"
        command = f"salad assets {row.name}" if not row.verified else ""
        rows.append({**asdict(row), "state": state, "command": command, "what": ASSETS[row.name].description})
    return rows


def foreign_assets() -> list[str]:
    """Names of assets of which something lies in the cache that is no folder: nothing can be fetched there."""
    return [name for name in ASSETS if asset_dir(name).exists() and not asset_dir(name).is_dir()]


def _debian(package: str) -> str:
    command = f"apt-get install -y {package}"
    if not sys.platform.startswith("linux") or shutil.which("apt-get") is None:
        return f"{command} (on Debian; else your system's package of that name)"
    return command if os.geteuid() == 0 else f"sudo {command}"
