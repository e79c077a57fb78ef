from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import nn
from torch.nn import functional

from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.evaluation.probes.linear import LinearProbe
from monai_ssl_transfer.evaluation.probes.logistic import LogisticProbe
from monai_ssl_transfer.evaluation.probes.vectors import LabelledVectors

NAMES = ("normal", "polyp", "ulcer")


def _data(count: int, seed: int, findings: bool = False, blocks: bool = False) -> LabelledVectors:
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(count) % 3
    vectors = torch.randn(count, 6, generator=generator) + 1.5 * torch.eye(3, 6)[targets]
    if findings:
        targets = (vectors[:, :3] > 1).float()
    layers = torch.randn(count, 4, 2, 6, generator=generator) if blocks else None
    if layers is not None:
        layers[:, 0, 0] = vectors
    names = tuple(f"{seed}-{one}" for one in range(count))
    return LabelledVectors(vectors, targets, names, names, NAMES, layers)


@pytest.mark.parametrize("findings", [False, True])
def test_heads_trained_together_equal_torch_sgd_alone(findings: bool) -> None:
    train, test = _data(60, 1, findings, blocks=True), _data(9, 2, findings, blocks=True)
    # one batch holds all cases, so that the order within an epoch does not matter; heads start at 0
    probe = LinearProbe(rates=(0.02, 0.5), epochs=30, batch_size=500, initial_sd=0.0, weight_decay=0.01)
    outcome = probe.predict(train, test, test, 0)
    assert outcome.chosen["iterations"] == 30 and outcome.chosen["batch_size"] == 60 and len(outcome.tried) == 8
    for rate in probe.rates:
        for blocks in (1, 4):
            for pooled in (False, True):
                one = replace(probe, rates=(rate,), last_blocks=(blocks,), average_patches=(pooled,))
                found = one.predict(train, test.subset([]), test, 0).probabilities
                torch.testing.assert_close(found, _plain_sgd(train, test, rate, blocks, pooled), rtol=0, atol=1e-5)


def _plain_sgd(train: LabelledVectors, test: LabelledVectors, rate: float, blocks: int, pooled: bool) -> torch.Tensor:
    def features(data: LabelledVectors) -> torch.Tensor:
        assert data.blocks is not None
        parts = [data.blocks[:, number, 0] for number in range(blocks)]
        return torch.cat([*parts, data.blocks[:, 0, 1]] if pooled else parts, dim=1)

    x = features(train)
    layer = nn.Linear(x.shape[1], 3)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    optimizer = torch.optim.SGD(layer.parameters(), lr=rate * 60 / 256, momentum=0.9, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 30)
    loss = functional.binary_cross_entropy_with_logits if train.multilabel else functional.cross_entropy
    for _ in range(30):
        optimizer.zero_grad()
        loss(layer(x), train.targets).backward()
        optimizer.step()
        schedule.step()
    logits = layer(features(test)).detach()
    return logits.sigmoid() if train.multilabel else logits.softmax(1)


def test_the_best_head_on_validation_predicts() -> None:
    train, validation, test = _data(200, 1, blocks=True), _data(90, 2, blocks=True), _data(60, 3, blocks=True)
    probe = LinearProbe(epochs=5, batch_size=32)
    outcome = probe.predict(train, validation, test, 0)
    assert len(outcome.tried) == 13 * 4
    top = max(outcome.tried, key=lambda one: one["score"])
    assert {key: outcome.chosen[key] for key in ("learning_rate", "last_blocks", "average_patches")} == {
        key: top[key] for key in ("learning_rate", "last_blocks", "average_patches")
    }
    assert outcome.chosen["iterations"] == 5 * 6
    assert (outcome.probabilities.argmax(1) == test.targets).float().mean() > 0.6
    assert torch.equal(outcome.probabilities, probe.predict(train, validation, test, 0).probabilities)
    assert not torch.equal(outcome.probabilities, probe.predict(train, validation, test, 1).probabilities)


def test_resnet_has_rates_only_and_a_diverging_rate_has_no_score() -> None:
    train, validation, test = _data(60, 1), _data(30, 2), _data(9, 3)
    wild = replace(train, vectors=train.vectors * 1e15)
    outcome = LinearProbe(rates=(1e30, 1e-32), epochs=20).predict(wild, validation, test, 0)
    assert [set(one) for one in outcome.tried] == [{"learning_rate", "metric", "score"}] * 2
    assert outcome.tried[0]["score"] is None and outcome.chosen["learning_rate"] == 1e-32


def test_refit_trains_the_chosen_head_on_validation_too() -> None:
    train, validation, test = _data(60, 1, blocks=True), _data(30, 2, blocks=True), _data(9, 3, blocks=True)
    outcome = LinearProbe(epochs=5, refit=True).predict(train, validation, test, 0)
    assert outcome.chosen["training_cases"] == 90
    first = LinearProbe(epochs=5).predict(train, validation, test, 0)
    assert first.tried == outcome.tried and not torch.equal(first.probabilities, outcome.probabilities)


def test_what_the_linear_probe_refuses() -> None:
    train, empty = _data(12, 1, blocks=True), _data(12, 1, blocks=True).subset([])
    with pytest.raises(DataError, match="give one setting of each"):
        LinearProbe().predict(train, empty, train, 0)
    with pytest.raises(DataError, match="4 last blocks and the linear probe asks for 6"):
        LinearProbe(last_blocks=(6,)).predict(train, train, train, 0)
    with pytest.raises(DataError, match="different classes"):
        LinearProbe().predict(train, train, replace(train, class_names=("a", "b", "c")), 0)


def _objective(flat: np.ndarray, x: np.ndarray, y: np.ndarray, penalty: float) -> tuple[float, np.ndarray]:
    """1/2 |W|^2 + C * summed cross-entropy and its gradient by autograd."""
    value = torch.from_numpy(flat).clone().requires_grad_()
    weight, bias = value[:-3].view(3, -1), value[-3:]
    logits = torch.from_numpy(x) @ weight.T + bias
    loss = 0.5 * (weight**2).sum() + penalty * functional.cross_entropy(logits, torch.from_numpy(y), reduction="sum")
    loss.backward()
    return loss.item(), value.grad.numpy()  # type: ignore[union-attr]


def test_logistic_regression_reaches_the_minimum_of_its_objective() -> None:
    train, test = _data(90, 1), _data(20, 2)
    outcome = LogisticProbe(penalties=(0.1,)).predict(train, test.subset([]), test, 0)
    mean, scale = train.vectors.double().mean(0), train.vectors.double().std(0, correction=0)
    x, z = (((one.vectors.double() - mean) / scale).numpy() for one in (train, test))
    found = minimize(_objective, np.zeros(21), (x, train.targets.numpy(), 0.1), jac=True, tol=1e-12)
    expected = torch.from_numpy(z @ found.x[:-3].reshape(3, -1).T + found.x[-3:]).softmax(1)
    torch.testing.assert_close(outcome.probabilities, expected.float(), rtol=0, atol=1e-3)
    assert outcome.chosen["converged"] and outcome.chosen["C"] == 0.1


def test_c_is_chosen_on_validation() -> None:
    train, validation, test = _data(45, 1), _data(45, 2), _data(20, 3)
    outcome = LogisticProbe(penalties=(1e-6, 1e-2, 1.0)).predict(train, validation, test, 0)
    scores = {one["C"]: one["score"] for one in outcome.tried}
    assert list(scores) == [1e-6, 1e-2, 1.0] and scores[outcome.chosen["C"]] == max(scores.values())
    alone = LogisticProbe(penalties=(outcome.chosen["C"],)).predict(train, validation, test, 0).probabilities
    torch.testing.assert_close(outcome.probabilities, alone, rtol=0, atol=1e-3)  # the warm start changes nothing
    refitted = LogisticProbe(penalties=(1e-6, 1e-2, 1.0), refit=True).predict(train, validation, test, 0)
    assert refitted.chosen["training_cases"] == 90 and refitted.tried == outcome.tried
    hurried = LogisticProbe(penalties=(1e4, 1.0), iterations=2).predict(train, validation, test, 0)
    assert not hurried.tried[-1]["converged"]


def test_findings_get_a_regression_each_and_absent_classes_are_named() -> None:
    train, test = _data(60, 1, findings=True), _data(20, 2, findings=True)
    never = replace(train, targets=train.targets * torch.tensor([1.0, 1.0, 0.0]))
    outcome = LogisticProbe(penalties=(1.0,)).predict(never, test, test, 0)
    assert outcome.chosen["classes_without_both_answers"] == ["ulcer"]
    assert (outcome.probabilities[:, 2] == 0).all()
    single = replace(train, targets=train.targets[:, 0].long(), class_names=("no", "yes"))
    other = replace(test, targets=test.targets[:, 0].long(), class_names=("no", "yes"))
    alone = LogisticProbe(penalties=(1.0,)).predict(single, other, other, 0).probabilities
    torch.testing.assert_close(outcome.probabilities[:, 0], alone[:, 1])
    two = _data(60, 1).subset([one for one in range(60) if one % 3])
    outcome = LogisticProbe(penalties=(1.0,)).predict(two, _data(9, 2), _data(9, 2), 0)
    assert outcome.chosen["classes_without_both_answers"] == ["normal"] and (outcome.probabilities[:, 0] == 0).all()
