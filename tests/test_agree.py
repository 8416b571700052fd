"""Labelers beside assessors: every value against another package, golden numbers, what is missing, words."""

from __future__ import annotations

import json
import math
from itertools import permutations
from pathlib import Path

import ir_measures
import numpy as np
import polars as pl
import pytest
from sklearn.metrics import (
    brier_score_loss,
    cohen_kappa_score,
    confusion_matrix,
    precision_score,
    recall_score,
    roc_auc_score,
)

from harness._agreed import notes, tables
from harness.agree import Agreement, agree, ceiling
from harness.agree_rated import Rated
from harness.agree_tables import interval, kappas
from harness.draws import generator
from harness.errors import SchemaError, UsageError
from harness.frames import QRELS, empty
from harness.trec import read_qrels

KEYS = ["query_id", "doc_id"]


def frame(topic, document, relevance, probs=None, gain=None) -> pl.DataFrame:
    """QRELS of an assessor, or with `probs` LABELS."""
    made = pl.DataFrame(
        {
            "query_id": [str(t) for t in topic],
            "doc_id": [str(d) for d in document],
            "relevance": pl.Series([None if r is None else int(r) for r in relevance], dtype=pl.Int16),
        }
    ).with_columns(gain=pl.col("relevance").cast(pl.Float32))
    if gain is not None:
        made = made.with_columns(gain=pl.Series(gain, dtype=pl.Float32))
    if probs is None:
        return made.with_columns(assessor=pl.lit("human"))
    return made.with_columns(
        probs=pl.Series([None if p is None else list(p) for p in probs], dtype=pl.List(pl.Float32)),
        labeler=pl.lit("l"),
        reason=pl.lit(None, pl.String),
    )


@pytest.fixture(scope="module")
def made() -> tuple[pl.DataFrame, pl.DataFrame, dict[str, np.ndarray]]:
    """12 topics of unequal size, human grades 0-3, labels with distributions, and both as arrays."""
    rng = np.random.default_rng(11)
    topic = np.repeat(np.arange(12), rng.integers(5, 40, 12))
    document = np.concatenate([np.arange(n) for n in np.bincount(topic)])
    human = rng.choice(4, len(topic), p=[0.4, 0.3, 0.2, 0.1])
    probs = (
        rng.dirichlet(np.ones(4), len(topic))
        + 2 * np.eye(4)[np.clip(human + rng.integers(-1, 2, len(topic)), 0, 3)]
    )
    probs = (probs / probs.sum(axis=1, keepdims=True)).astype(np.float32).astype(float)
    label = probs.argmax(axis=1)
    gain = (probs @ np.arange(4)).astype(np.float32)
    arrays = {"topic": topic, "human": human, "label": label, "probs": probs, "gain": gain}
    return frame(topic, document, human), frame(topic, document, label, probs, gain), arrays


@pytest.fixture(scope="module")
def rated(made) -> Rated:
    human, labels, _ = made
    return agree(human, {"l": labels}, resamples=200).labelers["l"]


# -- values --------------------------------------------------------------------------------------------------


def test_kappas_are_those_of_scikit_learn(made, rated) -> None:
    a, b = made[2]["human"], made[2]["label"]
    assert rated.values["kappa"] == pytest.approx(cohen_kappa_score(a, b))
    assert rated.values["kappa_linear"] == pytest.approx(cohen_kappa_score(a, b, weights="linear"))
    assert rated.values["kappa_quadratic"] == pytest.approx(cohen_kappa_score(a, b, weights="quadratic"))
    for grade in (1, 2, 3):
        assert rated.values[f"kappa_at.{grade}"] == pytest.approx(cohen_kappa_score(a >= grade, b >= grade))
    assert rated.values["kappa_binary"] == rated.values["kappa_at.2"]
    assert rated.threshold == 2
    assert rated.values["accuracy"] == pytest.approx((a == b).mean())
    assert rated.values["mae"] == pytest.approx(np.abs(a - b).mean())
    assert rated.values["bias"] == pytest.approx((b - a).mean())


def test_confusion_precision_and_recall_are_those_of_scikit_learn(made, rated) -> None:
    a, b = made[2]["human"], made[2]["label"]
    assert rated.confusion == confusion_matrix(a, b).tolist()
    precision, recall = (f(a, b, average=None) for f in (precision_score, recall_score))
    for grade, row in rated.per_grade.items():
        assert row["precision"] == pytest.approx(precision[grade])
        assert row["recall"] == pytest.approx(recall[grade])
        assert (row["judged"], row["labeled"]) == ((a == grade).sum(), (b == grade).sum())


def test_auc_takes_the_expected_gain_and_orders_the_hard_grades(made, rated) -> None:
    of = made[2]
    for grade in (1, 2, 3):
        assert rated.values[f"auc.{grade}"] == pytest.approx(roc_auc_score(of["human"] >= grade, of["gain"]))
    right = tied = number = 0
    for t in range(12):
        rows = np.flatnonzero(of["topic"] == t)
        for i, j in permutations(rows, 2):
            if of["human"][i] > of["human"][j]:
                number += 1
                right += of["label"][i] > of["label"][j]
                tied += of["label"][i] == of["label"][j]
    assert rated.values["pairwise_accuracy.strict"] == pytest.approx(right / number)
    assert rated.values["pairwise_accuracy.half_ties"] == pytest.approx((right + tied / 2) / number)


def test_calibration_is_of_the_probability_of_being_relevant(made, rated) -> None:
    p, y = made[2]["probs"][:, 2:].sum(axis=1), made[2]["human"] >= 2
    place = np.minimum((p * 10).astype(int), 9)
    ece = sum(abs(y[place == i].sum() - p[place == i].sum()) for i in range(10)) / len(p)
    assert rated.values["ece"] == pytest.approx(ece, abs=1e-6)
    assert rated.values["brier"] == pytest.approx(brier_score_loss(y, np.clip(p, 0, 1)), abs=1e-6)
    assert [bin_["pairs"] for bin_ in rated.reliability] == np.bincount(place, minlength=10).tolist()
    for i, bin_ in enumerate(rated.reliability):
        if bin_["pairs"]:
            assert bin_["relevant"] == pytest.approx(y[place == i].mean())
            assert bin_["probability"] == pytest.approx(p[place == i].mean(), abs=1e-6)


def test_labels_as_a_run_measure_what_ir_measures_does(made, rated) -> None:
    human, labels, _ = made
    qrels = [ir_measures.Qrel(*row) for row in human.select(*KEYS, "relevance").iter_rows()]
    run = [ir_measures.ScoredDoc(*row) for row in labels.select(*KEYS, "gain").iter_rows()]
    wanted = {name: ir_measures.parse_measure(name) for name in ("nDCG@10", "AP", "AP(rel=2)")}
    expected = ir_measures.calc_aggregate(list(wanted.values()), qrels, run)
    for name, measure in wanted.items():
        assert rated.values[f"labels_as_run.{name}"] == pytest.approx(expected[measure], abs=1e-6)


def test_intervals_are_those_of_topics_drawn_in_a_plain_loop(made) -> None:
    human, labels, of = made
    found = agree(human, {"l": labels}, resamples=300, seed=5).labelers["l"]
    rng = generator(5, 4)
    rows = [np.flatnonzero(of["topic"] == t) for t in sorted(range(12), key=str)]
    drawn = [np.concatenate([rows[t] for t in rng.integers(0, 12, 12)]) for _ in range(300)]
    a, b, gain = of["human"], of["label"], of["gain"]
    by_hand = {
        "kappa": [cohen_kappa_score(a[r], b[r]) for r in drawn],
        "kappa_quadratic": [cohen_kappa_score(a[r], b[r], weights="quadratic") for r in drawn],
        "accuracy": [(a[r] == b[r]).mean() for r in drawn],
        "bias": [(b[r] - a[r]).mean() for r in drawn],
    }
    for name, values in by_hand.items():
        assert found.ci[name] == pytest.approx(np.quantile(values, [0.025, 0.975]), abs=1e-9)
    # scores are in 128 bins for the interval of AUC: its ends move by less than what a bin can hide
    areas = [roc_auc_score(a[r] >= 2, gain[r]) for r in drawn]
    assert found.ci["auc.2"] == pytest.approx(np.quantile(areas, [0.025, 0.975]), abs=5e-3)
    for name, value in found.values.items():
        low, high = found.ci[name]
        assert low <= value <= high or name == "ece"  # an ECE is above its mean in every resample


def test_the_seed_decides_and_nothing_else_does(made) -> None:
    human, labels, _ = made
    one = agree(human, {"l": labels}, resamples=50, seed=1)
    again = agree(
        human.reverse(), {"l": labels.sample(fraction=1, shuffle=True, seed=3)}, resamples=50, seed=1
    )
    assert json.dumps(one.to_json()) == json.dumps(again.to_json())
    assert agree(human, {"l": labels}, resamples=50, seed=2).labelers["l"].ci != one.labelers["l"].ci


def test_an_assessor_agrees_with_herself_and_not_with_her_opposite(made) -> None:
    human = made[0]
    turned = human.with_columns(relevance=3 - pl.col("relevance"), gain=3 - pl.col("gain"))
    found = agree(human, {"same": human, "turned": turned}, resamples=50).labelers
    same, other = found["same"].values, found["turned"].values
    assert {same[k] for k in ("kappa", "kappa_linear", "kappa_quadratic", "alpha_ordinal", "accuracy")} == {
        1.0
    }
    assert (same["mae"], same["bias"], same["labels_as_run.nDCG@10"]) == (0, 0, pytest.approx(1))
    assert {same[f"auc.{g}"] for g in (1, 2, 3)} == {1.0}
    assert other["kappa_quadratic"] < 0
    assert other["pairwise_accuracy.strict"] == 0
    assert other["auc.2"] == 0


# -- what is missing -----------------------------------------------------------------------------------------


def test_missing_labels_count_in_nothing(made) -> None:
    human, labels, of = made
    kept = np.random.default_rng(0).random(len(of["topic"])) < 0.7
    holes = labels.with_columns(
        relevance=pl.when(pl.Series(kept)).then("relevance"),
        gain=pl.when(pl.Series(kept)).then("gain"),
        probs=pl.when(pl.Series(kept)).then("probs"),
        reason=pl.when(~pl.Series(kept)).then(pl.lit("refused")),
    )
    part = labels.filter(pl.Series(kept))
    null = agree(human, {"l": holes}, resamples=50).labelers["l"]
    absent = agree(human, {"l": part}, resamples=50).labelers["l"]
    only = agree(human.filter(pl.Series(kept)), {"l": part}, resamples=50).labelers["l"]
    assert null.values == absent.values == only.values
    assert null.ci == absent.ci == only.ci
    assert (null.pairs, null.missing) == (kept.sum(), (~kept).sum())
    assert null.missing_reasons == {"refused": (~kept).sum()}
    assert absent.missing_reasons == {"no label": (~kept).sum()}
    assert only.missing == 0
    lines = agree(human, {"l": holes}, resamples=50).notes
    assert any("have no label and count in nothing (refused:" in line for line in lines)


def test_labels_of_unjudged_documents_and_codes_are_said(made) -> None:
    human, labels, _ = made
    coded = pl.concat([human, frame(["0"], ["code"], [-2])])
    found = agree(
        coded, {"l": labels, "more": pl.concat([labels, labels.with_columns(query_id=pl.lit("z"))[:3]])}
    )
    assert found.labelers["more"].further == 3
    assert found.labelers["l"].left_out == 1
    assert "1 judgments below 0 were left out" in found.notes


def test_probabilities_of_some_labels_are_scored_for_those(made) -> None:
    human, labels, of = made
    some = labels.with_columns(probs=pl.when(pl.int_range(pl.len()) % 2 == 0).then("probs"))
    found = agree(human, {"l": some}, resamples=50).labelers["l"]
    p, y = of["probs"][::2, 2:].sum(axis=1), of["human"][::2] >= 2
    assert found.values["brier"] == pytest.approx(((p - y) ** 2).mean(), abs=1e-6)
    assert sum(b["pairs"] for b in found.reliability) == len(p)


def test_hard_labels_have_no_calibration_and_say_why(made) -> None:
    human, labels, _ = made
    found = agree(human, {"l": labels.with_columns(probs=pl.lit(None, pl.List(pl.Float32)))}, resamples=50)
    one = found.to_json()
    assert (one["ece"], one["brier"], one["ci"]["ece"]) == (None, None, None)
    assert one["undefined"]["ece"] == "the labels state no probabilities"
    assert one["reliability"] == []


def test_what_is_undefined_says_why() -> None:
    human = frame("aabb", "wxyz", [0, 1, 0, 1])
    zeros = frame("aabb", "wxyz", [0, 0, 0, 0])
    found = agree(human, {"zeros": zeros}, resamples=50)
    one = found.to_json()
    assert one["kappa"] is None
    assert one["undefined"]["kappa"] == "all labels are 0"
    assert one["undefined"]["kappa_binary"] == "all labels are below 1"
    assert "zeros: no kappa, since all labels are 0" in found.notes
    assert "zeros: intervals over 2 topics are narrower than they should be" in found.notes
    flat = agree(zeros, {"zeros": zeros}, grades=[0, 1, 2], resamples=50).to_json()
    assert flat["undefined"]["kappa"] == "all judgments are 0 and all labels are 0"
    assert flat["undefined"]["pairwise_accuracy.strict"] == "no topic has judgments of two grades"
    assert flat["undefined"]["auc.2"] == "no judgment is 2 or more"
    full = agree(frame("ab", "xy", [2, 2]), {"l": frame("ab", "xy", [2, 1])}, resamples=50).to_json()
    assert full["undefined"]["auc.1"] == "every judgment is 1 or more"
    assert json.loads(json.dumps(flat)) == flat  # no NaN in it


def test_one_topic_has_values_and_no_intervals(made) -> None:
    human, labels = (f.filter(pl.col("query_id") == "3") for f in made[:2])
    one = agree(human, {"l": labels}, grades=range(4)).labelers["l"]
    assert math.isfinite(one.values["kappa"])
    assert set(one.ci.values()) == {None}
    assert one.undefined["ci.kappa"] == "one topic does not say how topics differ"


# -- several labelers, and a second assessor -----------------------------------------------------------------


def test_several_labelers_are_compared_on_the_pairs_of_both(made) -> None:
    human, labels, of = made
    rng = np.random.default_rng(4)
    label = np.clip(of["human"] + rng.integers(-2, 3, len(of["human"])), 0, 3)
    other = human.with_columns(
        relevance=pl.Series(label, dtype=pl.Int16), gain=pl.Series(label, dtype=pl.Float32)
    )
    kept = rng.random(len(label)) < 0.8
    found = agree(human, {"l": labels, "other": other.filter(pl.Series(kept)), "h": human}, resamples=100)
    assert [one["labelers"] for one in found.pairwise] == [["l", "other"], ["l", "h"], ["other", "h"]]
    first = found.pairwise[0]
    a, b, h = of["label"][kept], label[kept], of["human"][kept]
    assert first["pairs"] == kept.sum()
    assert first["kappa"] == pytest.approx(cohen_kappa_score(a, b))
    assert first["kappa_binary"] == pytest.approx(cohen_kappa_score(a >= 2, b >= 2))
    assert first["kappa_quadratic"] == pytest.approx(cohen_kappa_score(a, b, weights="quadratic"))
    assert first["kappa_gap"] == pytest.approx(cohen_kappa_score(h, a) - cohen_kappa_score(h, b))
    low, high = first["ci"]["kappa_gap"]
    assert low < first["kappa_gap"] < high
    assert found.pairwise[1]["ci"]["kappa_gap"][1] < 0  # nobody is nearer to the assessors than they are
    assert set(found.to_json()) >= {"labelers", "pairwise", "together", "notes"}
    import krippendorff

    data = [of["human"].tolist(), of["label"].tolist(), np.where(kept, label, np.nan), of["human"].tolist()]
    for level in ("nominal", "ordinal"):
        expected = krippendorff.alpha(data, level_of_measurement=level, value_domain=[0, 1, 2, 3])
        assert found.together[f"alpha_{level}"] == pytest.approx(expected)


def test_labelers_without_a_pair_in_common_say_so(made) -> None:
    human, labels, _ = made
    found = agree(
        human,
        {"a": labels.filter(pl.col("query_id") == "1"), "b": labels.filter(pl.col("query_id") == "2")},
        resamples=50,
    )
    assert found.pairwise == [
        {"labelers": ["a", "b"], "pairs": 0, "undefined": "no judged pair has labels of both"}
    ]


def test_the_ceiling_is_how_two_assessors_agree_on_what_both_judged(made) -> None:
    human, labels, of = made
    rng = np.random.default_rng(8)
    grade = np.clip(of["human"] + rng.choice([-1, 0, 0, 0, 1], len(of["human"])), 0, 3)
    second = human.with_columns(
        relevance=pl.Series(grade, dtype=pl.Int16), gain=pl.Series(grade, dtype=pl.Float32)
    )
    kept = rng.random(len(grade)) < 0.5
    found = agree(human, {"l": labels}, second=second.filter(pl.Series(kept)), resamples=50)
    expected = cohen_kappa_score(of["human"][kept], grade[kept])
    assert found.ceiling.values["kappa"] == pytest.approx(expected)
    assert found.ceiling.pairs == kept.sum()
    shown = found.to_json()
    assert shown["of_ceiling"]["kappa"] == pytest.approx(found.labelers["l"].values["kappa"] / expected)
    assert shown["ceiling"]["kappa"] == pytest.approx(expected)
    alone = ceiling(human, second.filter(pl.Series(kept)), resamples=50)
    assert alone.to_json() == found.ceiling.to_json()


def test_a_second_assessor_s_higher_grades_widen_the_scale() -> None:
    first, second = frame("aabb", "wxyz", [0, 1, 2, 1]), frame("aabb", "wxyz", [0, 3, 2, 1])
    assert ceiling(first, second, resamples=10).grades == [0, 1, 2, 3]
    assert agree(first, {"l": first}, second=second, resamples=10).labelers["l"].grades == [0, 1, 2, 3]


# -- what is refused -----------------------------------------------------------------------------------------

HUMAN = frame("aabb", "wxyz", [0, 3, 2, 1])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"labels": {}}, "no labels to compare"),
        ({"labels": {"l": HUMAN}, "resamples": 0}, "0 resamples give no interval"),
        ({"labels": {"l": empty(QRELS)}}, "l holds no label"),
        ({"human": empty(QRELS), "labels": {"l": HUMAN}}, "human holds no judgment"),
        ({"labels": {"l": frame("a", "w", [9])}}, "l gives grades that are not on the assessors' scale: 9"),
        ({"labels": {"l": frame("aa", "ww", [1, 1])}}, "labeled more than once"),
        ({"human": pl.concat([HUMAN, HUMAN]), "labels": {"l": HUMAN}}, "judged more than once"),
        ({"labels": {"l": frame("c", "w", [1])}}, "no label of a pair that the assessors judged"),
        ({"labels": {"l": HUMAN}, "grades": [0, 1]}, "not among 0, 1: 2, 3"),
        (
            {"labels": {"l": HUMAN}, "second": frame("a", "q", [1])},
            "the second assessor has no label of a pair",
        ),
        ({"labels": {"l": HUMAN}, "second": empty(QRELS)}, "the second assessor holds no judgment"),
    ],
)
def test_bad_input_is_refused(arguments, words) -> None:
    with pytest.raises(UsageError, match=words):
        agree(arguments.pop("human", HUMAN), **arguments)


def test_nulls_of_the_assessor_are_refused() -> None:
    with pytest.raises(SchemaError, match="null in relevance"):
        agree(frame("ab", "xy", [1, None]), {"l": HUMAN})


# -- words ---------------------------------------------------------------------------------------------------


def words(found: Agreement) -> str:
    lines = [str(cell) for _, columns, rows in tables(found) for row in [columns, *rows] for cell in row]
    return "\n".join([*lines, notes(found)])


def test_tables_have_as_many_cells_as_columns_and_no_bare_nan(made) -> None:
    human, labels, _ = made
    hard = labels.with_columns(probs=pl.lit(None, pl.List(pl.Float32)))
    for found in (
        agree(human, {"l": labels}, second=human, resamples=50),
        agree(
            human,
            {"l": labels, "hard": hard, "zero": human.with_columns(relevance=pl.lit(0, pl.Int16))},
            resamples=50,
        ),
    ):
        for _, columns, rows in tables(found):
            assert {len(row) for row in rows} == {len(columns)}
        assert "nan" not in words(found)
        assert f"{found.labelers['l'].values['kappa']:.4f}" in words(found)
    assert "% of that of two assessors" in words(agree(human, {"l": labels}, second=human, resamples=50))


# -- real collections ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "labels", "pairs", "expected"),
    [
        (
            "rag_human_umbrela",
            "umbrela",
            10_284,
            {
                "kappa": "0.2333",
                "kappa_quadratic": "0.4918",
                "alpha_ordinal": "0.4926",
                "kappa_at.1": "0.367",
                "kappa_at.2": "0.431",
                "kappa_at.3": "0.310",
                "kappa_at.4": "0.084",
            },
        ),
        (
            "dl19_passage",
            "umbrela_gpt4",
            9260,
            {"kappa": "0.3385", "kappa_binary": "0.5123", "alpha_ordinal": "0.580"},
        ),
        (
            "dl21_passage_runs",
            "umbrela_gpt4",
            10_828,
            {"kappa": "0.3463", "kappa_binary": "0.4725", "alpha_ordinal": "0.624"},
        ),
    ],
)
def test_golden_numbers(data_dir: Path, folder, labels, pairs, expected) -> None:
    human = read_qrels(data_dir / folder / "qrels.human.txt")
    one = agree(human, {"l": read_qrels(data_dir / folder / f"qrels.{labels}.txt")}, resamples=200).labelers[
        "l"
    ]
    assert (one.pairs, one.missing) == (pairs, 0)
    for name, value in expected.items():
        assert f"{one.values[name]:.{len(value) - 2}f}" == value, name
        low, high = one.ci[name]
        assert low < one.values[name] < high


def test_dl19_binary_kappa_is_at_two(data_dir: Path) -> None:
    human = read_qrels(data_dir / "dl19_passage" / "qrels.human.txt")
    one = agree(human, {"same": human}, resamples=10).labelers["same"]
    assert (one.threshold, one.grades) == (2, [0, 1, 2, 3])


def test_chorus_raters_agree_as_scikit_learn_says(data_dir: Path) -> None:
    """A human ceiling on real double judgments, codes of raters included."""
    folder = data_dir / "chorus_electronics"
    first, second = (read_qrels(folder / f"qrels.rater{n}.txt") for n in (1, 2))
    found = ceiling(first, second, resamples=100)
    joined = first.filter(pl.col("relevance") >= 0).join(
        second.filter(pl.col("relevance") >= 0), on=KEYS, how="inner", suffix="_2"
    )
    assert found.pairs == joined.height > 1000
    a, b = joined["relevance"].to_numpy(), joined["relevance_2"].to_numpy()
    assert found.values["kappa"] == pytest.approx(cohen_kappa_score(a, b))
    assert 0.5 < found.values["kappa"] < 0.75


def test_kappas_of_thousands_of_tables_are_one_call() -> None:
    """`interval` of a kappa whose replicates are tables: a shape law that `rate` rests on."""
    tables_ = np.random.default_rng(0).integers(1, 9, (5000, 4, 4)).astype(float)
    values = kappas(tables_, 1 - np.eye(4))
    assert values.shape == (5000,)
    low, high = interval(values)
    assert low < 0 < high
