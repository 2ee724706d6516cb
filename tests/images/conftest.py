"""Small stand-ins for layers, and caches of a test's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pervade.cluster.images import oci, recipes


class DryLayers(recipes.Layers):
    """All recipes with empty layers: names, keys and configurations are the real ones."""

    def get(self, name: str, mark: str, make: Callable[[Path], None]) -> Path:
        return super().get(name, mark, lambda out: oci.layer(out, {f"made/{name}": b""}))


@pytest.fixture
def dry(tmp_path: Path) -> list[oci.Image]:
    """Every image of the project, its layers empty."""
    return recipes.images(DryLayers(tmp_path / "dry", lambda _text: None))
