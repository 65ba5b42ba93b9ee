"""python train.py --help: every field is explained by the comment that stands beside it."""

import dataclasses
import inspect
import io
import tokenize

import pytest

from hftraining.experiment.usage import usage
from hftraining.portfolio.config import PortfolioConfig
from hftraining.sweep.config import Command, SearchConfig
from hftraining.training.config import TrainingConfig

LINES = usage(Command).splitlines()
FIELDS = LINES[LINES.index("Fields (field=value):") + 1 : -2]


def test_every_field_of_the_help_is_explained():
    bare = [line for line in FIELDS if "#" not in line and not line.endswith(":")]
    assert bare == [] and len(FIELDS) > 60


@pytest.mark.parametrize("config", [PortfolioConfig, SearchConfig])
def test_every_field_of_a_group_that_a_command_line_can_add_is_explained(config):
    @dataclasses.dataclass
    class Tree:
        group: config

    lines = usage(Tree, {"group": {field.name: None for field in dataclasses.fields(config)}}).splitlines()
    fields = lines[lines.index("group:") + 1 : -2]
    assert len(fields) == len(dataclasses.fields(config)) and all("  # " in line for line in fields), fields


def test_an_explanation_is_the_comment_of_the_source():
    source = inspect.getsource(TrainingConfig)
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    comments = {token.line.split(":")[0].strip(): token.string for token in tokens if token.type == tokenize.COMMENT}
    begin = FIELDS.index("training:")
    for field in dataclasses.fields(TrainingConfig):
        if field.name in comments:
            (line,) = [line for line in FIELDS[begin:] if line.startswith(f"  {field.name}: ")][:1]
            assert line.endswith(comments[field.name])
