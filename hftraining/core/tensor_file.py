"""The header of a safetensors file that a stranger may have written, checked before any tensor is made."""

import math
from pathlib import Path

from hftraining.core.untrusted import MB, Untrusted, open_regular, parse_json, shown

HEADER_MOST = 4 * MB  # a thousand layers need a quarter of it
BYTES = {"F64": 8, "F32": 4, "U8": 1}  # of the types that we write
NUMPY = {"F64": "float64", "F32": "float32", "U8": "uint8"}
TENSORS_MOST = 8 * 2**30  # bytes of a file
AXES_MOST = 4

Shapes = dict[str, tuple[str, tuple[int, ...]]]  # name -> numpy's name of the type, and the shape


def shapes_of(path: Path, most: int = TENSORS_MOST) -> Shapes:
    """The types and shapes of a file's tensors, which together fill the file exactly. Raises Untrusted.

    So what is allocated for them is no more than the file's size, which is at most so many bytes.
    """
    with open_regular(path, most) as file:
        length = int.from_bytes(file.read(8), "little")
        if length > HEADER_MOST:
            raise Untrusted(f"{path} is damaged (it names a header of {length:,} bytes)")
        text = file.read(length)
        size = file.seek(0, 2) - 8 - length
    try:
        header = parse_json(text.decode("utf-8").rstrip(), str(path))
    except UnicodeDecodeError:
        raise Untrusted(f"{path} is damaged (its header is not text)") from None
    if not isinstance(header, dict):
        raise Untrusted(f"{path} is damaged (its header is no JSON object)")
    header.pop("__metadata__", None)
    found: Shapes = {}
    ends = 0
    for name, entry in header.items():
        if not _is_sound(entry):
            raise Untrusted(f"{path} is damaged (the tensor {shown(name)} is not one that we write)")
        found[name] = NUMPY[entry["dtype"]], tuple(entry["shape"])
        ends += entry["data_offsets"][1] - entry["data_offsets"][0]
    if ends != size:
        raise Untrusted(f"{path} is damaged (its header names {ends:,} bytes of {size:,})")
    return found


def difference(found: Shapes, wanted: Shapes) -> str:
    """What a file holds that was not wanted, or lacks, in a few words; empty where it holds what was wanted."""
    for name in sorted(found.keys() | wanted.keys()):
        ours, theirs = wanted.get(name), found.get(name)
        if ours != theirs:
            return f"{shown(name)} is {_text(theirs)}, where this model has {_text(ours)}"
    return ""


def _text(shape: tuple[str, tuple[int, ...]] | None) -> str:
    return "no tensor" if shape is None else f"{shape[0]} {list(shape[1])}"


def _is_sound(entry: object) -> bool:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        return False
    shape, ends, width = entry["shape"], entry["data_offsets"], BYTES.get(str(entry["dtype"]))
    if width is None or not (_are_whole(shape) and _are_whole(ends)) or len(ends) != 2 or len(shape) > AXES_MOST:
        return False
    return bool(math.prod(shape) * width == ends[1] - ends[0])


def _are_whole(values: object) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)
