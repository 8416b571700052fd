"""Faults of a file of labels, planted one at a time, and a clean control."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import cohen_kappa_score

from harness.agree_pairs import judged
from harness.diagnose_scale import CHECKS, Finding, scale_checks
from harness.draws import generator


def qrels(grades: list[int] | np.ndarray, assessor: str = "human", topics: int = 20) -> pl.DataFrame:
    grades = np.asarray(grades)
    rows = np.arange(len(grades))
    return pl.DataFrame(
        {
            "query_id": [f"q{i % topics:02}" for i in rows],
            "doc_id": [f"d{i:04}" for i in rows],
            "relevance": pl.Series(grades, dtype=pl.Int16),
            "gain": pl.Series(grades, dtype=pl.Float32),
            "assessor": [assessor] * len(grades),
        }
    )


HUMAN = generator(1, 0).choice(4, 800, p=[0.5, 0.25, 0.15, 0.1])


def noisy(grades: np.ndarray, rate: float = 0.3) -> np.ndarray:
    rng = generator(2, 0)
    other = rng.choice(4, len(grades), p=[0.5, 0.25, 0.15, 0.1])
    return np.where(rng.random(len(grades)) < rate, other, grades)


def found(labels: pl.DataFrame, human: np.ndarray = HUMAN) -> dict[str, Finding]:
    checks = scale_checks(judged(qrels(human), range(4)), labels, "labels.txt", 0, 200)
    assert [one.check for one in checks] == list(CHECKS)
    return {one.check: one for one in checks}


def names(checks: dict[str, Finding]) -> set[str]:
    return {name for name, one in checks.items() if one.found}


def test_clean_labels_have_no_fault() -> None:
    checks = found(qrels(noisy(HUMAN), "l@1"))
    assert not names(checks)
    assert not any(one.next for one in checks.values())


def test_a_perfect_copy_has_no_fault() -> None:
    assert not names(found(qrels(HUMAN, "l@1")))


def test_grades_turned_round() -> None:
    checks = found(qrels(3 - noisy(HUMAN), "l@1"))
    assert names(checks) == {"inverted"}
    one = checks["inverted"]
    right = cohen_kappa_score(HUMAN, noisy(HUMAN), weights="quadratic")
    assert one.evidence["kappa_quadratic_mirrored"] == pytest.approx(right, abs=1e-12)
    assert one.evidence["spearman"] < 0
    assert one.evidence["gain_ci"][0] > 0
    assert "lookup:labels.txt" in one.next
    assert checks["shifted"].found is None


@pytest.mark.parametrize("shift", [1, -1])
def test_grades_one_off(shift: int) -> None:
    checks = found(qrels(np.clip(noisy(HUMAN) + shift, 0, 3), "l@1"))
    assert names(checks) == {"shifted"}
    one = checks["shifted"].evidence
    assert one["shift"] == -shift
    given = np.clip(noisy(HUMAN) + shift, 0, 3)
    assert one["kappa"] == pytest.approx(cohen_kappa_score(HUMAN, given), abs=1e-12)
    back = np.clip(given - shift, 0, 3)
    assert one["kappa_shifted"] == pytest.approx(cohen_kappa_score(HUMAN, back), abs=1e-12)


def test_grades_of_another_scale_are_named_and_the_shift_too() -> None:
    checks = found(qrels(noisy(HUMAN) + 1, "l@1"))
    assert names(checks) == {"out_of_scale", "shifted"}
    one = checks["out_of_scale"]
    assert one.blocking
    assert one.evidence == {
        "grades": {"4": int((noisy(HUMAN) == 3).sum())},
        "labels": int((noisy(HUMAN) == 3).sum()),
    }
    assert "--grades 0,1,2,3,4" in one.next
    assert checks["shifted"].evidence["shift"] == -1


def test_a_grade_below_the_scale() -> None:
    grades = noisy(HUMAN)
    grades[5] = -1
    one = found(qrels(grades, "l@1"))["out_of_scale"]
    assert one.found
    assert one.evidence["grades"] == {"-1": 1}
    assert "--grades" not in one.next


def test_a_pair_labeled_twice() -> None:
    labels = qrels(noisy(HUMAN), "l@1")
    twice = labels.head(3).with_columns(relevance=pl.Series([3, 3, 3], dtype=pl.Int16))
    checks = found(pl.concat([labels, twice]))
    assert names(checks) == {"duplicates"}
    assert checks["duplicates"].blocking
    assert checks["duplicates"].evidence["pairs"] == 3
    assert checks["duplicates"].evidence["differing"] == int((labels["relevance"].head(3) != 3).sum())
    assert "stopgap lint labels.txt" in checks["duplicates"].next
    assert checks["inverted"].found is None


def test_labels_that_are_all_the_same() -> None:
    checks = found(qrels(np.full(800, 2), "l@1"))
    assert names(checks) == {"constant"}
    assert checks["constant"].evidence == {"grade": 2, "pairs": 800}
    assert checks["inverted"].found is None


def test_judgments_that_are_all_the_same_give_no_direction() -> None:
    checks = found(qrels(noisy(HUMAN), "l@1"), np.ones(800, np.int64))
    assert checks["inverted"].found is None
    assert checks["shifted"].found is None


def test_noise_without_any_agreement_is_not_called_turned_round() -> None:
    labels = generator(5, 0).permutation(HUMAN)
    assert not names(found(qrels(labels, "l@1")))


def test_one_label() -> None:
    checks = found(qrels(HUMAN, "l@1").head(1))
    assert checks["constant"].found is None
    assert not names(checks)
