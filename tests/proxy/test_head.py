"""Head and loss in blocks give the numbers of the plain way."""

import pytest
import torch

from raymix.proxy.head import loss_and_gradients, token_losses


@pytest.mark.parametrize("rows", [1, 127, 128, 300])
def test_loss_and_gradients_equal_autograd(rows: int) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(rows, 16, generator=generator, requires_grad=True)
    weight = torch.randn(50, 16, generator=generator, requires_grad=True)
    targets = torch.randint(0, 50, (rows,), generator=generator)
    loss = torch.nn.functional.cross_entropy(hidden @ weight.t(), targets)
    loss.backward()
    found, by = loss_and_gradients(hidden, weight, targets, torch.float32)
    torch.testing.assert_close(found, loss.detach(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(by.hidden, hidden.grad, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(by.weight, weight.grad, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(token_losses(hidden, weight, targets, torch.float32).mean(), loss.detach())


def test_overflow_is_seen_not_hidden() -> None:
    hidden, weight = torch.full((2, 4), 1e30), torch.eye(4)[[0, 1, 2, 3]] * 1e30
    loss, *_ = loss_and_gradients(hidden, weight, torch.tensor([0, 1]), torch.float32)
    assert not torch.isfinite(loss)
