import pytest
import torch
from torch.testing import assert_close

from pyro_vbd.training.stacks import Stacks


def test_tensors_are_one_inside_and_take_what_became_of_them_after_it():
    tensors = [torch.full((2, 3), float(k)) for k in range(3)]
    parameter = [torch.nn.Parameter(torch.zeros(2)) for _ in range(3)]
    read = [torch.ones(1) for _ in range(3)]
    stacks = Stacks()
    with stacks.held([True, False, True]):
        stack, is_stack = stacks.take(tensors, changes=True)
        assert is_stack
        assert_close(stack, torch.arange(3.0)[:, None, None].expand(3, 2, 3))
        stack += 10
        stacks.take(parameter, changes=True)[0].add_(1)
        stacks.take(read, changes=False)[0].add_(1)
        assert [tensor.mean().item() for tensor in tensors] == [0, 1, 2]
    assert [tensor.mean().item() for tensor in tensors] == [10, 1, 12]
    assert [tensor.mean().item() for tensor in parameter] == [1, 0, 1]
    assert [tensor.item() for tensor in read] == [1, 1, 1]


def test_they_come_back_after_an_error_too():
    tensors = [torch.zeros(2), torch.zeros(2)]
    stacks = Stacks()

    def interrupted():
        with stacks.held([True, True]):
            stacks.take(tensors, changes=True)[0].add_(1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert tensors[0].tolist() == tensors[1].tolist() == [1, 1]


def test_whoever_asks_gets_the_same_stack_with_the_values_of_now():
    tensors = [torch.zeros(2), torch.zeros(2)]
    others = [torch.zeros(2), torch.zeros(2)]
    stacks = Stacks()
    with stacks.held([True, True]):
        first, _ = stacks.take(tensors, changes=True)
        first.add_(1)
        assert stacks.take(tensors, changes=False)[0] is first
        assert stacks.take(others, changes=True)[0] is not first
        assert first.sum() == 4  # taking it again has not set it back
    tensors[0].add_(5)
    with stacks.held([True, True]):
        again, _ = stacks.take(tensors, changes=True)
        assert again.data_ptr() == first.data_ptr()
        assert again[:, 0].tolist() == [6, 1]


def test_what_all_share_and_nobody_changes_is_no_stack():
    shared = torch.ones(2)
    stacks = Stacks()
    with stacks.held([True, True]):
        found, is_stack = stacks.take([shared, shared.detach()], changes=False)
        assert found is shared
        assert not is_stack
        for some in ([shared, shared], [shared, torch.ones(2), shared]):
            with pytest.raises(ValueError, match=r"share a tensor of shape \(2,\)"):
                stacks.take(some, changes=True)


@pytest.mark.parametrize("view", [lambda tensor: tensor.t(), lambda tensor: tensor[1:].expand(3, 3).narrow(1, 0, 2)])
def test_a_view_of_what_changes_is_refused(view):
    tensors = [torch.zeros(2, 3), torch.zeros(2, 3)]
    stacks = Stacks()
    with stacks.held([True, True]):
        stacks.take(tensors, changes=True)
        with pytest.raises(ValueError, match=r"shape \(3, 2\) is a view"):
            stacks.take([view(tensor) for tensor in tensors], changes=False)


def test_a_square_and_its_transpose_are_two():
    tensors = [torch.randn(3, 3), torch.randn(3, 3)]
    stacks = Stacks()
    with stacks.held([True, True]):
        stacks.take(tensors, changes=False)
        found, _ = stacks.take([tensor.t() for tensor in tensors], changes=False)
        assert_close(found, torch.stack([tensor.t() for tensor in tensors]))


def test_empty_tensors_share_no_memory():
    tensors = [torch.zeros(0, 3), torch.zeros(0, 3)]
    stacks = Stacks()
    with stacks.held([True, True]):
        assert stacks.take(tensors, changes=True)[0].shape == (2, 0, 3)
        assert stacks.take([tensor.long() for tensor in tensors], changes=True)[0].dtype == torch.long
