"""Cut the embedded sample out of a full LFW deep-funneled archive: `python data/samples/cut.py lfw-deepfunneled.tgz`.

One photograph (the first by name) of each of the 1,000 people whose SHA-256 of the name is smallest. The JPEG bytes are
untouched; the tar is made anew with sorted names, fixed times and owners, so the same input gives the same digest.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import sys
import tarfile
from pathlib import Path

PEOPLE = 1000
TARGET = Path(__file__).with_name("lfw-sample.tgz")


def chosen(names: list[str]) -> list[str]:
    """The member names to keep, sorted: `names` are `lfw-deepfunneled/First_Last/First_Last_NNNN.jpg`."""
    first: dict[str, str] = {}
    for name in sorted(names):
        first.setdefault(name.split("/")[1], name)
    people = sorted(first, key=lambda person: hashlib.sha256(person.encode()).hexdigest())[:PEOPLE]
    return sorted(first[person] for person in people)


def cut(source: Path, target: Path) -> str:
    """Write the sample archive and return its hex SHA-256."""
    with tarfile.open(source) as full:
        members = {m.name: m for m in full if m.isfile() and m.name.endswith(".jpg")}
        keep = set(chosen(list(members)))
        photographs = {}
        for name, member in members.items():  # in the archive's order: a gzip stream goes only forward
            if name in keep:
                stream = full.extractfile(member)
                assert stream is not None
                photographs[name] = stream.read()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in sorted(photographs):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(photographs[name]), 0o644, 0
            tar.addfile(entry, io.BytesIO(photographs[name]))
    data = gzip.compress(buffer.getvalue(), 9, mtime=0)
    target.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


if __name__ == "__main__":
    digest = cut(Path(sys.argv[1]), TARGET)
    print(f"{TARGET}: {TARGET.stat().st_size:,} bytes, sha256 {digest}")
