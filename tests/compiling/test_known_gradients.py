import pytest
import torch

from pyro_vbd.compiling.known_gradients import loss_with_gradients


def known():
    parameters = [torch.zeros(3, requires_grad=True), torch.zeros(2, requires_grad=True)]
    gradients = [torch.tensor([1.0, 2.0, 3.0]), torch.tensor([4.0, 5.0])]
    return loss_with_gradients(torch.tensor(7.0), gradients, parameters), parameters


def test_gradients_are_given_on_scaled_and_added_up():
    for factor in (1.0, 0.5, -2.0):
        loss, (first, second) = known()
        (factor * loss).backward()
        assert loss.item() == 7.0
        assert first.grad.tolist() == [factor, 2 * factor, 3 * factor]
        assert second.grad.tolist() == [4 * factor, 5 * factor]
    again = loss_with_gradients(torch.tensor(0.0), [torch.ones(3)], [first])
    again.backward()
    assert first.grad.tolist() == [-1.0, -3.0, -5.0]


def test_a_second_backward_is_refused():
    loss, _ = known()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="backward once"):
        loss.backward()


def test_gradients_of_gradients_are_refused():
    """They would lack what the loss's own second derivatives add."""
    loss, parameters = known()
    first, _ = torch.autograd.grad(loss**2, parameters, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()
