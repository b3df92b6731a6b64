from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from lapcvae.data.prepare import prepare
from lapcvae.editing.photograph import open_face, open_picture
from lapcvae.errors import SourceError

PARAMS = Path(__file__).parents[2] / "params.yaml"


def test_a_photograph_is_aligned_to_the_byte_as_the_pipeline_does(photographs: list[Path], tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "one.jpg").write_bytes(photographs[0].read_bytes())
    prepare(source, tmp_path / "out", PARAMS, "none", size_px=32)
    expected = np.load(tmp_path / "out" / "aligned" / "images.npy")
    face = open_face(photographs[0], 32, PARAMS)
    assert face.shape == (1, 3, 32, 32)
    np.testing.assert_array_equal((face[0] * 255).round().byte().permute(1, 2, 0).numpy(), expected[0])


def test_an_aligned_face_is_taken_as_it_is(faces: torch.Tensor, tmp_path: Path) -> None:
    pixels = (faces[0] * 255).byte().permute(1, 2, 0).numpy()
    cv2.imwrite(str(tmp_path / "face.png"), pixels[..., ::-1])
    assert torch.equal(open_face(tmp_path / "face.png", 64, PARAMS, aligned=True), faces[:1])
    smaller = open_face(tmp_path / "face.png", 32, PARAMS, aligned=True)
    torch.testing.assert_close(smaller, torch.nn.functional.avg_pool2d(faces[:1], 2), atol=1 / 255, rtol=0)


def test_celebas_own_layout_is_cut_as_published(tmp_path: Path) -> None:
    image = np.zeros((218, 178, 3), np.uint8)
    image[40:188, 15:163] = 200
    cv2.imwrite(str(tmp_path / "000001.png"), image)
    face = open_face(tmp_path / "000001.png", 148, PARAMS, aligned=True)
    assert torch.equal(face, torch.full((1, 3, 148, 148), 200 / 255))


def test_what_is_no_face_is_said(tmp_path: Path, photographs: list[Path]) -> None:
    with pytest.raises(SourceError, match="no such file"):
        open_face(tmp_path / "none.jpg", 64, PARAMS)
    (tmp_path / "text.jpg").write_text("no photograph")
    with pytest.raises(SourceError, match="not_an_image: no known image format"):
        open_face(tmp_path / "text.jpg", 64, PARAMS)
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((200, 300, 3), 128, np.uint8))
    with pytest.raises(SourceError, match=r"no_face.*--aligned"):
        open_face(tmp_path / "grey.png", 64, PARAMS)
    with pytest.raises(SourceError, match="300 x 200 pixels; an aligned face is square"):
        open_face(tmp_path / "grey.png", 64, PARAMS, aligned=True)
    cut = photographs[0].read_bytes()
    (tmp_path / "cut.jpg").write_bytes(cut[: len(cut) // 2])
    with pytest.raises(SourceError, match=r"cut\.jpg: truncated"):
        open_face(tmp_path / "cut.jpg", 64, PARAMS)


def test_a_level_of_any_size_can_be_read(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "level.png"), np.full((8, 8, 3), 51, np.uint8))
    assert torch.equal(open_picture(tmp_path / "level.png", PARAMS), torch.full((1, 3, 8, 8), 51 / 255))
