"""`labelsieve demo`: the complete workflow on bundled synthetic sketches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from labelsieve.commands.base import Command, Flag
from labelsieve.core.validation import DemoSize, Seed


@dataclass(frozen=True, kw_only=True)
class Demo(Command):
    """Shows the complete workflow on sketches with known wrong labels and a bundled model; needs no network.

    Attributes:
        out: Run folder to write.
        images: Number of sketches.
        seed: Seed of all random choices.
        overwrite: Replace an existing run.
    """

    out: Path = Path("runs/demo")
    images: DemoSize = 2000
    seed: Seed = 0
    overwrite: Flag = False

    def run(self, console: Console) -> None:
        """Runs the demonstration."""
        from labelsieve.demo.run import run_demo

        run_demo(self.out, images=self.images, seed=self.seed, console=console, overwrite=self.overwrite)
