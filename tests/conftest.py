"""The whole product, started as its users start it, on ports and a folder of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.product import Product


@pytest.fixture(scope="session")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    with Product.started(tmp_path_factory.mktemp("product")) as running:
        yield running


@pytest.fixture
def another_folder(tmp_path: Path) -> Path:
    return tmp_path / "other"
