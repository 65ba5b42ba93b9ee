"""Several processes as one: hftraining/training/parallel.py, whose helpers are forked here."""

import os
import signal

import numpy as np
import pytest
import torch
import torch.distributed as dist

from hftraining.core.errors import Fault, Interrupted
from hftraining.training.parallel import CrewBroken, ProcessCrew
from tests.crews import forked_crew


def test_parts_of_uneven_sizes_are_gathered_in_the_order_of_the_ranks(tmp_path):
    sizes = [2, 1, 0]

    def part(rank):
        return 10.0 * rank + torch.arange(sizes[rank] * 3.0).view(sizes[rank], 3)

    def work():
        crew = ProcessCrew()
        crew.gather(part(crew.rank), sizes)

    with forked_crew(tmp_path, 3, work) as crew:
        found = crew.gather(part(0).requires_grad_(), sizes)
    assert torch.equal(found, torch.cat([part(rank) for rank in range(3)])) and not found.requires_grad


def test_gradients_are_summed_and_a_weight_without_one_keeps_none(tmp_path):
    def gradients(rank):
        return torch.full((2, 3), float(rank + 1)), torch.arange(4.0) * 10**rank

    def sum_up(crew):
        model = torch.nn.ParameterList([torch.zeros(2, 3), torch.zeros(5), torch.zeros(4)])
        model[0].grad, model[2].grad = gradients(crew.rank)
        crew.sum_gradients(model)
        return model

    with forked_crew(tmp_path, 3, lambda: sum_up(ProcessCrew())) as crew:
        model = sum_up(crew)
    expected = [sum(parts) for parts in zip(*(gradients(rank) for rank in range(3)), strict=True)]
    assert model[1].grad is None
    assert torch.equal(model[0].grad, expected[0]) and torch.equal(model[2].grad, expected[1])


def test_what_the_lead_sends_arrives_to_the_bit(tmp_path):
    tensors = {
        "a matrix with strides": torch.arange(6.0).view(2, 3).T,
        "whether": torch.tensor([[True, False]]),
        "nothing": torch.zeros(0, 4),
        "a number": torch.tensor(float("nan")),
        "whole": torch.tensor([2**62, -1]),
    }
    header = {"text": "\u00e9", "list": [1, 2.5, None]}

    def work():
        known, found = ProcessCrew().receive()
        assert known == header and found.keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert found[name].dtype == tensor.dtype
            np.testing.assert_array_equal(found[name].numpy(), tensor.numpy())
        ProcessCrew().gather(torch.ones(1), [1, 1])  # the lead hears of a failed assertion

    with forked_crew(tmp_path, 2, work) as crew:
        crew.send(header, tensors)
        crew.gather(torch.ones(1), [1, 1])


@pytest.mark.parametrize("length", [0, -5, 64 * 2**20 + 1, 2**62])
def test_a_length_that_no_lead_sends_is_refused_before_memory_is_allocated(tmp_path, length):
    said = tmp_path / "said"

    def work():
        try:
            ProcessCrew().receive()
        except CrewBroken as broken:
            said.write_text(str(broken))

    with forked_crew(tmp_path, 2, work):
        dist.broadcast(torch.tensor([length]), 0)
    assert said.read_text() == f"the lead announced {length} bytes, which nobody sends"


@pytest.mark.slow
def test_the_longest_header_is_received(tmp_path):
    said = tmp_path / "said"
    text = b'{"header": {"a": 1}, "tensors": {}}'

    with forked_crew(tmp_path, 2, lambda: said.write_text(str(ProcessCrew().receive()))):
        dist.broadcast(torch.tensor([64 * 2**20]), 0)
        dist.broadcast(torch.frombuffer(bytearray(text.ljust(64 * 2**20)), dtype=torch.uint8), 0)
    assert said.read_text() == "({'a': 1}, {})"


def test_the_others_take_the_steps_that_the_lead_takes_until_it_leaves(tmp_path):
    taken = tmp_path / "taken"

    def work():
        model = torch.nn.Linear(2, 2, bias=False)
        torch.nn.init.ones_(model.weight)
        taken.write_text(" ".join(str(step) for step in ProcessCrew().steps(model)))

    with forked_crew(tmp_path, 2, work) as crew:
        model = torch.nn.Linear(2, 2, bias=False)
        torch.nn.init.ones_(model.weight)
        for step in (7, 8, 9):
            with crew.step(step):
                assert not crew.is_idle
            crew.compare(model)
        crew.leave()
    assert taken.read_text() == "7 8 9"


def test_processes_with_other_weights_are_told_apart_by_a_single_bit(tmp_path):
    def model(rank):
        model = torch.nn.Linear(2, 2)
        with torch.no_grad():
            model.weight.fill_(1.0)
            model.bias.fill_(np.nextafter(np.float32(1.0), np.float32(2.0)) if rank == 2 else 1.0)
        return model

    def work():
        crew = ProcessCrew()
        try:
            list(crew.steps(model(crew.rank)))
        except CrewBroken:
            raise SystemExit(5) from None

    with forked_crew(tmp_path, 3, work) as crew, pytest.raises(CrewBroken, match="process 2 of 3 holds other") as told:
        crew.compare(model(0))
    assert isinstance(told.value.end, Fault) and not crew.is_idle


def test_a_process_that_was_lost_is_told_and_said_in_the_words_of_who_started_it(tmp_path):
    with forked_crew(tmp_path / "a", 2, lambda: signal.pause()) as crew:
        os.kill(crew.pids[0], signal.SIGKILL)
        with pytest.raises(CrewBroken, match="one of the 2 processes was lost") as told:
            crew.gather(torch.ones(1), [1, 1])
    assert isinstance(told.value.end, Interrupted) and not crew.is_idle
    with forked_crew(tmp_path / "b", 2, lambda: signal.pause(), why=lambda: Fault("it fell")) as crew:
        os.kill(crew.pids[0], signal.SIGKILL)
        with pytest.raises(CrewBroken, match="it fell"), crew.step(1):
            pass
