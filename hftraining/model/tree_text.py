"""LightGBM's text of a model, checked before LightGBM reads it: it trusts what it reads, offsets and children included.

A tree whose child is its own parent is walked for ever, and a size or a count that is wrong reads beyond the text.
"""

import math
import re

HEADER = {
    "version": r"v\d",
    "num_class": "1",
    "num_tree_per_iteration": "1",
    "label_index": "0",
    "max_feature_idx": r"\d{1,4}",
    "objective": "regression",
    "feature_names": r"\w+(?: \w+)*",
    "feature_infos": r"(?:none|\[[-+.\de]{1,40}:[-+.\de]{1,40}\]| )+",
    "tree_sizes": r"\d+(?: \d+)*",
}
SPLITS = ("split_feature", "split_gain", "threshold", "decision_type", "left_child", "right_child")
INNER = ("internal_value", "internal_weight", "internal_count")
LEAVES = ("leaf_value", "leaf_weight", "leaf_count")
FIELDS = ("num_leaves", "num_cat", *SPLITS, *LEAVES, *INNER, "is_linear", "shrinkage")
DECISIONS = range(0, 12)  # where a gap goes, and how it is told; never a category, which is odd
TAIL = re.compile(  # gaps are bounded: a million empty lines in several of them would take for ever
    r"\n{0,3}(?:feature_importances:\n(?:\w{1,40}=\d{1,9}\n)*)?\n{0,3}"
    r"(?:parameters:\n(?:\[\w{1,60}: [\w .,:+/-]{0,200}\]\n)*\n{0,3}end of parameters\n)?\n{0,3}"
    r"(?:pandas_categorical:(?:null|\[\])\n)?\n{0,3}"
)
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,3})?\Z")


def what_is_wrong(text: str, n_features: int, most_trees: int, most_leaves: int) -> str:
    """Why a text is not that of a regression like ours, in a few words; empty where it is one."""
    head, _, rest = text.partition("\n\n")
    first, *lines = head.split("\n")
    fields = dict(line.partition("=")[::2] for line in lines)
    if not text.isascii() or first != "tree" or fields.keys() != HEADER.keys() or len(fields) != len(lines):
        return "it is not a model of LightGBM that we write"
    if wrong := [name for name, rule in HEADER.items() if not re.fullmatch(rule, fields[name])]:
        return f"its {wrong[0]} is not what we write"
    for name, length in (("feature_names", n_features), ("feature_infos", n_features)):
        if int(fields["max_feature_idx"]) != n_features - 1 or len(fields[name].split(" ")) != length:
            return f"it has {int(fields['max_feature_idx']) + 1} features, not {n_features}"
    if len(fields["tree_sizes"]) > 20 * most_trees or not 0 < len(fields["tree_sizes"].split(" ")) <= most_trees:
        return f"it has more than {most_trees} trees"
    for number, size in enumerate(map(int, fields["tree_sizes"].split(" "))):
        block, rest = rest[:size], rest[size:]
        if wrong_tree := _wrong_tree(block, number, n_features, most_leaves):
            return f"tree {number}: {wrong_tree}"
    if not rest.startswith("end of trees\n") or not TAIL.fullmatch(rest.removeprefix("end of trees\n")):
        return "its end is not what we write"
    return ""


def _wrong_tree(block: str, number: int, n_features: int, most_leaves: int) -> str:
    first, *lines = block.rstrip("\n").split("\n")
    fields = dict(line.partition("=")[::2] for line in lines)
    if first != f"Tree={number}" or not block.endswith("\n") or set(fields) != set(FIELDS) or len(fields) != len(lines):
        return "its size or its fields are wrong"
    if not re.fullmatch(r"\d{1,6}", fields["num_leaves"]) or not 1 <= int(fields["num_leaves"]) <= most_leaves:
        return f"it has more than {most_leaves} leaves"
    if (fields["num_cat"], fields["is_linear"]) != ("0", "0"):
        return "it is of another kind"
    leaves = int(fields["num_leaves"])
    lengths = dict.fromkeys((*SPLITS, *INNER), leaves - 1) | dict.fromkeys(LEAVES, leaves) | {"shrinkage": 1}
    if leaves == 1:  # LightGBM writes no weight and count for it
        lengths |= {name: len(fields[name].split()) for name in LEAVES[1:] if len(fields[name].split()) <= 1}
    numbers: dict[str, list[float]] = {}
    for name, length in lengths.items():
        words = fields[name].split()
        if len(words) != length or not all(map(_NUMBER.match, words)):
            return f"its {name} is wrong"
        numbers[name] = list(map(float, words))
        if not all(map(math.isfinite, numbers[name])):
            return f"its {name} is not finite"
    if any(feature not in range(n_features) for feature in numbers["split_feature"]):
        return "it splits on a feature that is none"
    if any(kind not in DECISIONS or kind % 2 for kind in numbers["decision_type"]):
        return "it decides in another way"
    return _wrong_children(numbers["left_child"], numbers["right_child"], leaves)


def _wrong_children(left: list[float], right: list[float], leaves: int) -> str:
    """Each split but the first, and each leaf (-1 is the first), is the child of one split, which comes before it."""
    children = [(parent, child) for pair in (left, right) for parent, child in enumerate(pair)]
    wanted = [*range(1, leaves - 1), *range(-leaves, 0)] if leaves > 1 else []
    if sorted(child for _, child in children) != sorted(wanted) or any(0 <= c <= p for p, c in children):
        return "its splits do not form a tree"
    return ""
