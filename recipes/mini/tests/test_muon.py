"""Muon: what it learns, and that a training goes on from its saved state."""

from __future__ import annotations

import io

import torch
from torch import nn

from recipes.mini.muon import Muon, orthogonal


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 2))


def trained(model: nn.Module, optimizer: Muon, steps: int) -> float:
    torch.manual_seed(1)
    images, wanted = torch.randn(64, 3, 4, 4), torch.randn(64, 2)
    for _ in range(steps):
        loss = (model(images) - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float(loss.detach())


def test_an_orthogonal_update_has_singular_values_near_one() -> None:
    for shape in ((8, 100), (100, 8), (32, 32)):
        values = torch.linalg.svdvals(
            orthogonal(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
        )
        assert values.max() < 1.3 and values.median() > 0.6


def test_it_learns_convolutions_matrices_and_biases() -> None:
    model = network()
    before = [p.detach().clone() for p in model.parameters()]
    assert trained(model, Muon(model.parameters(), 0.02), 60) < 0.2
    assert all(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_training_goes_on_from_its_saved_state() -> None:
    whole = network()
    trained(whole, Muon(whole.parameters(), 0.02), 6)
    first = network()
    optimizer = Muon(first.parameters(), 0.02)
    trained(first, optimizer, 3)
    file = io.BytesIO()
    torch.save({"model": first.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    second = network()
    second.load_state_dict(state["model"])
    optimizer = Muon(second.parameters(), 0.02)
    optimizer.load_state_dict(state["optimizer"])
    trained(second, optimizer, 3)
    for a, b in zip(whole.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(a, b)
