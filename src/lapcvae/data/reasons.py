"""Why a photograph is not used: every rejected row of the manifest carries one of these words."""

from __future__ import annotations

REASONS: dict[str, str] = {
    # Refused before anything is opened.
    "system_file": "a hidden file or one an operating system leaves behind (.DS_Store, Thumbs.db, __MACOSX)",
    "not_a_file": "a link, FIFO, device or socket: never followed, never opened",
    "encrypted": "an archive member behind a password",
    "unreadable": "the file could not be read from its source (permissions, a damaged member)",
    "empty": "a file of no bytes",
    "file_too_large": "more bytes than `source.max_file_bytes`",
    # Refused by the header or the decoder.
    "not_an_image": "no known image format: text, HTML, a document, random bytes",
    "too_many_pixels": "more pixels than `decode.max_pixels`; refused from the header, before decoding",
    "too_small": "a side shorter than `decode.min_side_px`",
    "extreme_aspect": "longer against shorter side above `decode.max_aspect`",
    "truncated": "the image data end too early",
    "undecodable": "an image whose data its decoder refuses or finds damaged",
    "unsupported_mode": "an image of a kind of pixels that has no plain reading as 8-bit RGB (floating point, LAB)",
    "crashed": "the decoder or detector ended its process on this file alone",
    # Refused by what is seen in it.
    "detector_failed": "the detector raised an error on this photograph",
    "no_face": "no face found, or none with `align.min_score`",
    "small_face": "eyes closer than `align.min_eye_distance_px` in the source photograph",
    "turned": "the head is rotated by more than `align.max_rotation_deg`",
    "poor_fit": "the five points fit the template worse than `align.max_residual`: no upright, near-frontal face",
    "outside_frame": "more than `align.max_border_share` of the crop lies outside the photograph",
    "flat": "the aligned face has less contrast than `align.min_contrast`",
    # Refused for what else is in the data set.
    "duplicate": "the same pixels as another photograph, which is kept",
    "near_duplicate_across_splits": "nearly the same photograph as one in another split, which is kept",
}

NOT_COUNTED = frozenset({"system_file", "not_a_file"})
"""Reasons that say nothing about the photographs, left out of the share of rejects."""
