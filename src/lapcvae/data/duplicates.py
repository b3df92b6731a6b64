"""Photographs that are the same or nearly so: found by perceptual hash, grouped, kept out of two splits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

HASH_BYTES = 32  # a 16 x 16 perceptual hash, rows of the lowest frequencies first
_LOW = 8  # candidates are found in the lowest 8 x 8 frequencies, which change least
_BANDS = 4  # of 16 of those 64 bits; probing each with one bit changed finds every pair that differs in at most 7
_CANDIDATES = 1 << 14  # pairs compared at a time: so many that their hashes stay in a core's cache

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
    """Label near-duplicates: uint8 (N, 32) hashes to int64 (N,), the smallest index of each one's group.

    Groups are the connected parts of "at most `max_distance_bits` differ". Memory grows as N. So does time, but
    for the pairs that are compared: of evenly spread hashes N**2 / 1928, as each band's 16 bits are probed 17 times.
    """
    whole = np.ascontiguousarray(hashes).view(f"V{HASH_BYTES}").ravel()  # sorted much sooner than rows of bytes
    distinct, inverse = np.unique(whole, return_inverse=True)
    distinct = distinct.view(np.uint8).reshape(-1, HASH_BYTES)
    parent = np.arange(len(distinct))
    for left, right in _candidates(distinct):
        differ = np.bitwise_count(distinct[left] ^ distinct[right]).sum(axis=1, dtype=np.uint16)
        close = differ <= max_distance_bits
        for a, b in zip(left[close].tolist(), right[close].tolist(), strict=True):
            root_a, root_b = _root(parent, a), _root(parent, b)
            parent[max(root_a, root_b)] = min(root_a, root_b)
    roots = np.fromiter((_root(parent, i) for i in range(len(distinct))), np.int64, len(distinct))
    labels = roots[inverse.ravel()]
    first = np.full(len(distinct), len(hashes), dtype=np.int64)
    np.minimum.at(first, labels, np.arange(len(hashes)))
    return first[labels]


def _root(parent: np.ndarray, i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = int(parent[i])
    return i


def _candidates(hashes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    bands = np.ascontiguousarray(hashes[:, : 2 * _LOW : 2]).view(np.uint16)  # a row of a hash has two bytes
    for band in range(_BANDS):
        keys = bands[:, band]
        order = np.argsort(keys, kind="stable")
        counts_of = np.bincount(keys, minlength=1 << 16)  # looked up by key: a search would cost ten times as much
        start_of = np.cumsum(counts_of) - counts_of
        for left, right in _expand(np.arange(len(keys)), order, start_of[keys], counts_of[keys]):
            later = left < right
            yield left[later], right[later]
        for flip in (np.uint16(1 << bit) for bit in range(16)):
            asking = np.flatnonzero(keys & flip == 0)  # those with the bit set would find the same pairs again
            wanted = keys[asking] ^ flip
            yield from _expand(asking, order, start_of[wanted], counts_of[wanted])


def _expand(
    asking: np.ndarray, order: np.ndarray, start: np.ndarray, counts: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Each of `asking` with each of the `counts` that stand in `order` from `start` on."""
    ends = np.cumsum(counts)
    low = 0
    while low < len(counts):
        base = ends[low - 1] if low else 0
        high = max(low + 1, int(np.searchsorted(ends, base + _CANDIDATES, "right")))
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

    `pixels`: digests of the decoded pixels, bytes (N,); `hashes`: uint8 (N, 32); `rank`: int (N,), how much the split
    of each is worth keeping whole, for example 2 for test, 1 for val, 0 for train. Returns uint8 (N,) of KEEP,
    DUPLICATE or ACROSS, and int64 (N,) labels as of `near_groups`. Of equal pixels the first of the highest rank is
    kept. Of a group that spans several splits only the members of the highest rank are kept: nothing is moved to
    another split, ever, so what was there before new photographs came stays where it was.
    """
    rank = rank.astype(np.int64)
    labels = near_groups(hashes, max_distance_bits)
    outcome = np.zeros(len(pixels), dtype=np.uint8)
    best = np.zeros(len(pixels), dtype=np.int64)
    np.maximum.at(best, labels, rank)
    outcome[rank < best[labels]] = ACROSS
    _, same = np.unique(pixels, return_inverse=True)
    order = np.lexsort((np.arange(len(pixels)), -rank, same))
    again = np.zeros(len(pixels), dtype=bool)
    again[order[1:]] = same[order[1:]] == same[order[:-1]]
    outcome[again] = DUPLICATE
    return outcome, labels
