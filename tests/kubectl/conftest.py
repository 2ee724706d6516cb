"""The folder's cluster."""

import pytest


@pytest.fixture(scope="package")
def octet() -> int:
    return 140
