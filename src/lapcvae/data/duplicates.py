"""Photographs that are the same or nearly so: found by perceptual hash, grouped, kept out of two splits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

HASH_BYTES = 32  # a 16 x 16 perceptual hash, rows of the lowest frequencies first
_LOW = 8  # candidates are found in the lowest 8 x 8 frequencies, which change least
_BANDS = 4  # of 16 of those 64 bits; probing each with one bit changed finds every pair that differs in at most 7
_AT_A_TIME = 1 << 13  # hashes or pairs of them: what is made of so many stays in a core's cache

KEEP, DUPLICATE, ACROSS = 0, 1, 2


@dataclass(frozen=True)
class DuplicatesConfig:
    """The `duplicates` section of params.yaml."""

    max_distance_bits: int  # of 256; photographs whose hashes differ in at most so many are nearly the same

    def __post_init__(self) -> None:
        if not 0 <= self.max_distance_bits <= 64:
            raise ValueError(
                "max_distance_bits must be 0 to 64: above that, different photographs are taken for the same"
            )


def near_groups(hashes: np.ndarray, max_distance_bits: int) -> np.ndarray:
    """Label near-duplicates: uint8 (N, 32) hashes to int32 (N,), the smallest index of each one's group.

    Groups are the connected parts of "at most `max_distance_bits` differ". Memory grows as N. So does time, but for the
    pairs that are compared: of evenly spread hashes N**2 / 1928, as each band's 16 bits are probed 17 times.
    """
    hashes = np.ascontiguousarray(hashes)
    order, again = _sorted(hashes.view(f"V{HASH_BYTES}").ravel())  # sorted much sooner than rows of bytes
    firsts = np.sort(order[~again])  # one of each hash
    parent = np.empty(len(hashes), np.int32)
    parent[order] = order[~again][np.cumsum(~again, dtype=np.int32) - 1]
    words = hashes.view(np.uint64)
    for left, right in _candidates(hashes, firsts):
        differ = np.bitwise_count(words.take(left, axis=0) ^ words.take(right, axis=0))
        close = np.einsum("ij->i", differ, dtype=np.uint16) <= max_distance_bits
        for a, b in zip(left[close].tolist(), right[close].tolist(), strict=True):
            root_a, root_b = _root(parent, a), _root(parent, b)
            parent[max(root_a, root_b)] = min(root_a, root_b)
    while not np.array_equal(parent, above := parent[parent]):
        parent = above
    return parent


def _sorted(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int32 order of V? (N,), equal ones as they stand, and whether each in that order equals the one before it."""
    order = np.argsort(values, kind="stable").astype(np.int32)
    again = np.zeros(len(values), dtype=bool)
    for low in range(0, len(values) - 1, _AT_A_TIME):
        some = values[order[low : low + _AT_A_TIME + 1]]
        again[low + 1 : low + len(some)] = some[1:] == some[:-1]
    return order, again


def _root(parent: np.ndarray, i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = int(parent[i])
    return i


def _candidates(hashes: np.ndarray, chosen: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of indices, among the chosen ones, of hashes that may be near each other."""
    low_bytes = hashes[:, : 2 * _LOW : 2]  # a row of a hash has two bytes
    for band in range(_BANDS):
        keys = np.ascontiguousarray(low_bytes[:, 2 * band : 2 * band + 2]).view(np.uint16).ravel()[chosen]
        order = chosen[np.argsort(keys, kind="stable")]
        counts_of = np.bincount(keys, minlength=1 << 16)  # looked up by key: a search would cost ten times as much
        start_of = np.cumsum(counts_of) - counts_of
        for low in range(0, len(keys), _AT_A_TIME):
            some, asked = keys[low : low + _AT_A_TIME], chosen[low : low + _AT_A_TIME]
            for left, right in _expand(asked, order, start_of[some], counts_of[some]):
                later = left < right
                yield left[later], right[later]
            for flip in (np.uint16(1 << bit) for bit in range(16)):
                zero = np.flatnonzero(some & flip == 0)  # those with the bit set would find the same pairs again
                wanted = some[zero] ^ flip
                yield from _expand(asked[zero], order, start_of[wanted], counts_of[wanted])


def _expand(
    asking: np.ndarray, order: np.ndarray, start: np.ndarray, counts: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Each of `asking` with each of the `counts` that stand in `order` from `start` on."""
    ends = np.cumsum(counts)
    low = 0
    while low < len(counts):
        base = ends[low - 1] if low else 0
        high = max(low + 1, int(np.searchsorted(ends, base + _AT_A_TIME, "right")))
        part = counts[low:high]
        left = np.repeat(asking[low:high], part)
        within = np.arange(len(left)) - np.repeat(ends[low:high] - part - base, part)
        right = order[np.repeat(start[low:high], part) + within]
        yield left, right
        low = high


def decide(
    pixels: np.ndarray, hashes: np.ndarray, rank: np.ndarray, max_distance_bits: int
) -> tuple[np.ndarray, np.ndarray]:
    """What becomes of each of N photographs, and the group of near-duplicates it is in.

    `pixels`: digests of the decoded pixels, V? (N,); `hashes`: uint8 (N, 32); `rank`: uint8 (N,), how much the split
    of each is worth keeping whole, for example 2 for test, 1 for val, 0 for train. Returns uint8 (N,) of KEEP,
    DUPLICATE or ACROSS, and int32 (N,) labels as of `near_groups`. Of equal pixels the first of the highest rank is
    kept. Of a group that spans several splits only the members of the highest rank are kept: nothing is moved to
    another split, ever, so what was there before new photographs came stays where it was.
    """
    labels = near_groups(hashes, max_distance_bits)
    outcome = np.zeros(len(pixels), dtype=np.uint8)
    best = np.zeros(len(pixels), dtype=rank.dtype)
    np.maximum.at(best, labels, rank)
    outcome[rank < best[labels]] = ACROSS
    by_rank = np.argsort(np.iinfo(rank.dtype).max - rank, kind="stable").astype(np.int32)
    order, again = _sorted(pixels[by_rank])
    outcome[by_rank[order[again]]] = DUPLICATE
    return outcome, labels
