"""A packed sequence is one input, although a tuple."""

import pyro
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence
from torch.testing import assert_close

import pyro_vbd as vbd
from pyro_vbd.inputs import arguments, length, shapes
from pyro_vbd.placement import brought


class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.LSTM(4, 6), nn.Linear(6, 2)

    def forward(self, words):
        return self.head(self.layer(words)[1][0][-1])


def test_shapes_hold_no_data():
    x = torch.zeros(2, 3)
    found = shapes(((x, 1, None), {"flag": True, "words": pack_sequence([x])}))
    assert (found[0][0].shape, found[0][0].device.type, found[0][1:]) == (x.shape, "meta", (1, None))
    assert found[1]["flag"] is True
    assert found[1]["words"].data.is_meta
    assert not found[1]["words"].batch_sizes.is_meta  # torch wants them on the CPU
    assert shapes(((x,), {"graph": object()})) is None  # nor an object that may hold some


def test_arguments():
    x = torch.zeros(2)
    assert arguments(x) == ((x,), {})
    assert arguments([x, 3]) == ((x, 3), {})
    assert arguments({"x": x}) == ((), {"x": x})
    packed = pack_sequence([x])
    assert arguments(packed) == ((packed,), {})
    assert arguments((packed, x)) == ((packed, x), {})


def test_length():
    x = torch.zeros(4, 2)
    assert length((3, x)) == length({"x": x}) == 4
    assert length((torch.zeros(()), "word")) is None
    assert length(torch.zeros(0, 2)) == 0
    packed = pack_sequence([torch.zeros(n, 2) for n in (5, 3)])
    assert length(packed) == length(((packed,), torch.zeros(9))) == 2  # sequences, not their steps


def test_packed_sequences_through_training_and_prediction(device):
    words = pack_sequence([torch.randn(n, 4) for n in (5, 3, 2)])
    y = torch.tensor([0, 1, 1])
    model = vbd.Classifier(Reader(), vbd.priors.GaussianUniform(), num_data=3)
    guide = vbd.VBDGuide(model)
    run = vbd.fit(model, guide, [(words, y)], epochs=2, validation=[(words, y)], progress=False)
    in_a_tuple = vbd.negative_log_likelihood(model, guide, [((words,), y)])
    assert vbd.negative_log_likelihood(model, guide, [(words, y)]) == in_a_tuple
    assert len(run.history) == 2
    assert vbd.sweep(model, guide, [(words, y)], [3.0]).full_error in {0.0, 1 / 3, 2 / 3, 1.0}
    for x in (words, (words,), [words], [(words, y)], [((words,), y)]):
        pyro.set_rng_seed(0)
        probs = vbd.predict(model, guide, x, num_samples=4).probs
        assert_close(probs.sum(-1), torch.ones(3))


def test_a_packed_sequence_is_brought_with_its_lengths_left_on_the_cpu():
    found = brought({"x": pack_sequence([torch.randn(3, 4)])}, torch.device("meta"))["x"]
    assert found.data.device.type == "meta"
    assert found.batch_sizes.device.type == "cpu"


def test_the_lengths_do_not_say_where_a_packed_sequence_lies():
    """They are on the CPU, as a model may be that the sequence is not with."""
    here = pack_sequence([torch.randn(3, 4, device="cpu")])
    away = here._replace(data=here.data.to("meta"))
    assert brought((away,), torch.device("meta"))[0] is away
    assert brought((here,), torch.device("cpu"))[0] is here
    with pytest.raises(NotImplementedError, match="meta"):  # it goes, as far as a tensor without numbers can
        brought((away,), torch.device("cpu"))
