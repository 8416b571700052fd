"""Losses: against scikit-learn and numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from labelers.distill.losses import LOSSES, Rows, contrast, expected, middle

torch = pytest.importorskip("torch", reason="needs the extra train")

LOGITS = [[2.0, 1.0, 0.0, -1.0], [0.0, 0.0, 0.0, 0.0], [-3.0, 0.5, 1.0, 4.0], [0.2, -0.1, 2.0, 1.9]]
SOFT = [[0.7, 0.2, 0.1, 0.0], [0.25, 0.25, 0.25, 0.25], [0.0, 0.0, 0.5, 0.5], [0.1, 0.1, 0.6, 0.2]]
HARD = [0, 2, 3, 1]


def rows(
    probs: list[list[float]], logits: list[list[float]] = LOGITS, queries: list[int] | None = None
) -> Rows:
    return Rows(
        torch.tensor(logits, dtype=torch.float64, requires_grad=True),
        torch.tensor(probs, dtype=torch.float64),
        torch.arange(len(probs[0]), dtype=torch.float64),
        torch.tensor(queries or [0] * len(logits)),
    )


def softmax(row: list[float]) -> np.ndarray:
    mass = np.exp(np.array(row) - max(row))
    return mass / mass.sum()


def one_hot(grades: list[int]) -> list[list[float]]:
    return np.eye(4)[grades].tolist()


def test_kl_on_one_grade_is_the_log_loss_of_scikit_learn() -> None:
    from sklearn.metrics import log_loss

    student = np.array([softmax(row) for row in LOGITS])
    told = LOSSES["kl"](rows(one_hot(HARD)))
    assert told.mean().item() == pytest.approx(log_loss(HARD, student, labels=[0, 1, 2, 3]))


def test_kl_on_soft_labels_is_the_divergence_but_for_the_entropy() -> None:
    from scipy.stats import entropy

    told = LOSSES["kl"](rows(SOFT)).detach().numpy()
    for loss, p, logits in zip(told, SOFT, LOGITS, strict=True):
        assert loss == pytest.approx(entropy(p, softmax(logits)) + entropy(p))


def test_ordinal_is_the_mean_log_loss_of_at_least_each_grade() -> None:
    from sklearn.metrics import log_loss

    student = np.array([softmax(row) for row in LOGITS])
    steps = [
        log_loss([grade >= k for grade in HARD], student[:, k:].sum(axis=1), labels=[False, True])
        for k in (1, 2, 3)
    ]
    assert LOSSES["ordinal"](rows(one_hot(HARD))).mean().item() == pytest.approx(np.mean(steps))


def test_ordinal_on_soft_labels_by_hand() -> None:
    # softmax(0, 0, 0, 0): 3/4, 2/4 and 1/4 to reach 1, 2 and 3; taught 0.8, 0.5 and 0.1
    told = LOSSES["ordinal"](rows([[0.2, 0.3, 0.4, 0.1]], [[0.0] * 4]))
    by_hand = [
        -(p * math.log(q) + (1 - p) * math.log(1 - q)) for p, q in [(0.8, 0.75), (0.5, 0.5), (0.1, 0.25)]
    ]
    assert told.item() == pytest.approx(sum(by_hand) / 3)


def test_ordinal_holds_a_far_grade_to_be_worse_and_kl_does_not() -> None:
    near, far = [[0.0, 0.0, 9.0, 0.0]], [[9.0, 0.0, 0.0, 0.0]]
    taught = one_hot([3])
    assert LOSSES["kl"](rows(taught, near)).item() == pytest.approx(LOSSES["kl"](rows(taught, far)).item())
    assert LOSSES["ordinal"](rows(taught, near)).item() < LOSSES["ordinal"](rows(taught, far)).item() / 2


def test_mse_compares_expected_grades() -> None:
    from sklearn.metrics import mean_squared_error

    student = np.array([softmax(row) for row in LOGITS]) @ np.arange(4)
    told = LOSSES["mse"](rows(SOFT)).mean().item()
    assert told == pytest.approx(mean_squared_error(np.array(SOFT) @ np.arange(4), student))


def test_lce_by_hand() -> None:
    """Two queries: a relevant row with two that are not; a relevant row alone. The rest is not looked at."""
    logits = [[0.0, s] for s in (1.0, 2.0, 0.5, 3.0, 1.5)]  # contrast: the second logit less the first
    taught = [[0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.2, 0.8]]
    told = LOSSES["lce"](rows(taught, logits, [7, 7, 7, 8, 7])).tolist()
    others = math.exp(2.0) + math.exp(0.5)
    assert told == pytest.approx(
        [
            -math.log(math.exp(1.0) / (math.exp(1.0) + others)),
            0.0,
            0.0,
            0.0,  # nothing to be told from
            -math.log(math.exp(1.5) / (math.exp(1.5) + others)),  # the other relevant row is no rival
        ]
    )


def test_contrast_is_the_slope_of_the_least_squares_line() -> None:
    grades = np.array([0.0, 1.0, 3.0, 4.0])
    logits = torch.tensor(LOGITS, dtype=torch.float64)
    slopes = [np.polyfit(grades, row, 1)[0] for row in LOGITS]
    assert contrast(logits, torch.tensor(grades)).tolist() == pytest.approx(slopes)
    assert contrast(logits + 5, torch.tensor(grades)).tolist() == pytest.approx(slopes)


def test_expected_grade_and_the_middle_of_the_scale() -> None:
    assert expected(torch.tensor([[0.5, 0.0, 0.5]]), torch.tensor([0.0, 1.0, 4.0])).tolist() == [2.0]
    assert [middle([0, 1]), middle([0, 1, 2, 3]), middle([-2, 0, 2])] == [0.5, 1.5, 0.0]


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_and_its_gradient_stay_finite_where_probabilities_round_to_nothing(name: str) -> None:
    given = rows(
        [[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]], [[-900.0, 0.0, 0.0, 900.0], [800.0, 0.0, 0.0, 0.0]]
    )
    losses = LOSSES[name](given)
    losses.sum().backward()
    assert torch.isfinite(losses).all()
    assert torch.isfinite(given.logits.grad).all()
    assert (losses > 1).any()


@pytest.mark.parametrize("name", ["kl", "ordinal", "mse"])
def test_the_gradient_is_nil_where_the_student_says_what_it_was_taught(name: str) -> None:
    taught = [[0.4, 0.3, 0.2, 0.1]]
    given = rows(taught, [[math.log(p) for p in taught[0]]])
    LOSSES[name](given).sum().backward()
    assert given.logits.grad.abs().max() < 1e-9
