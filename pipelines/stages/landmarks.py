"""landmarks: data/raw -> data/landmarks/landmarks.csv, what each photograph shows (size, hashes, faces)."""

from __future__ import annotations

from pathlib import Path

from lapcvae.data.executor import ExecutorConfig, head_start

if __name__ == "__main__":
    head_start("lapcvae.data.landmarks")

from lapcvae.config import load
from lapcvae.data.decode import DecodeConfig
from lapcvae.data.detector import DetectorConfig
from lapcvae.data.landmarks import find_landmarks
from pipelines.stage import run_stage


def work() -> str:
    """Run the stage; returns its status line."""
    total, new = find_landmarks(
        raw=Path("data/raw"),
        out=Path("data/landmarks/landmarks.csv"),
        cache=Path(".cache/landmarks/sights.sqlite"),
        decode_config=load(DecodeConfig, "decode"),
        detector=load(DetectorConfig, "detector"),
        executor=load(ExecutorConfig, "executor"),
    )
    return f"{total} photographs, {new} newly looked at, {total - new} from the cache"


if __name__ == "__main__":
    run_stage("landmarks", work)
