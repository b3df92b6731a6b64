from pathlib import Path

import pytest

from tests.training.made import Small, make_small


@pytest.fixture
def small(tmp_path: Path) -> Small:
    return make_small(tmp_path)
