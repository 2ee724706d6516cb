"""The page about kubectl is what the rows say."""

from __future__ import annotations

from pathlib import Path

from pervade.testing import kubectl_page


def test_the_page_is_in_step_with_the_rows() -> None:
    page = Path(__file__).parents[2] / "docs" / "kubectl.md"
    assert page.read_text() == kubectl_page.page(), "python -m pervade.testing.kubectl_page > docs/kubectl.md"
