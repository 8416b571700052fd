"""Whether the text tells who says relevant: planted bias, chance, and outside judges of the tests."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.metrics import roc_auc_score

from harness import diagnose_terms
from harness.agree_pairs import Pairs
from harness.diagnose_terms import association, disagreement, predictability, terms
from harness.draws import generator

WORDS = [f"w{i}" for i in range(60)]
RESAMPLES = 300


def texts(number: int, topics: int, seed: int = 0) -> tuple[list[str], np.ndarray]:
    """Random words, of which some belong to a topic, and the topics."""
    rng = generator(seed, 0)
    topic = np.arange(number) % topics
    said = [" ".join([*rng.choice(WORDS, 20), f"topic{t}", f"topic{t}word{rng.integers(3)}"]) for t in topic]
    return said, topic


@pytest.fixture(scope="module")
def planted() -> tuple[list[str], np.ndarray, np.ndarray]:
    """The second rater says relevant where there is `cheap`, nearly always."""
    said, topic = texts(600, 20)
    rng = generator(1, 0)
    cheap = rng.random(600) < 0.5
    second = np.where(rng.random(600) < 0.1, ~cheap, cheap)
    return [f"{t} cheap" if c else t for t, c in zip(said, cheap, strict=True)], second, topic


class TestPredictability:
    def test_a_planted_word_is_learnt_and_carries_over_to_other_topics(self, planted) -> None:
        found = predictability(*planted, 0, RESAMPLES)
        assert found["auc"] > 0.8
        assert found["ci"][0] > 0.7
        assert found["ci"][0] < found["auc"] < found["ci"][1]

    @pytest.mark.parametrize("seed", [0, 1, 2])
    def test_random_disagreement_is_chance(self, seed: int) -> None:
        said, topic = texts(800, 25, seed)
        second = generator(seed, 7).random(800) < 0.4
        found = predictability(said, second, topic, seed, RESAMPLES)
        assert found["auc"] == pytest.approx(0.5, abs=0.07)
        assert found["ci"][0] < 0.5 < found["ci"][1]
        assert found["auc_pairs"] == pytest.approx(0.5, abs=0.07)

    def test_a_difference_of_topics_is_not_taken_for_one_of_words(self) -> None:
        said, topic = texts(800, 40)
        rng = generator(3, 0)
        lenient = rng.random(40) < 0.5
        second = rng.random(800) < np.where(lenient[topic], 0.9, 0.1)
        found = predictability(said, second, topic, 0, RESAMPLES)
        assert found["auc_pairs"] > 0.8
        assert found["ci"][0] < 0.5
        assert found["auc"] < 0.6

    def test_the_value_is_scikit_learns_where_there_is_one_fold(self) -> None:
        rng = generator(4, 0)
        x = csr_matrix(rng.random((200, 5)))
        second, topic = rng.random(200) < 0.5, np.arange(200) % 8
        train, test = np.arange(100), np.arange(100, 200)
        auc, _ = diagnose_terms._cross_validated(x, second, topic, [(train, test)], 0, 50)
        from sklearn.linear_model import LogisticRegression

        model = LogisticRegression(max_iter=1000, random_state=0).fit(x[train], second[train])
        assert auc == pytest.approx(roc_auc_score(second[test], model.decision_function(x[test])), abs=1e-12)

    @pytest.mark.parametrize(("number", "topics_", "why"), [(40, 8, "too few to learn"), (200, 4, "topics")])
    def test_too_few_are_said_and_no_number_is_given(self, number: int, topics_: int, why: str) -> None:
        said, topic = texts(number, topics_)
        found = predictability(said, np.arange(number) % 2 == 0, topic, 0, RESAMPLES)
        assert list(found) == ["undefined"]
        assert why in found["undefined"]
        assert list(terms(said, np.arange(number) % 2 == 0, topic)) == ["undefined"]

    def test_a_side_that_stands_in_few_topics_is_not_learnt_from(self) -> None:
        said, topic = texts(400, 20)
        assert "in 4 topics" in predictability(said, topic < 4, topic, 0, RESAMPLES)["undefined"]

    def test_texts_without_a_common_term(self) -> None:
        said = [f"only{i}" for i in range(100)]
        found = predictability(said, np.arange(100) % 2 == 0, np.arange(100) % 10, 0, RESAMPLES)
        assert "no term" in found["undefined"]
        assert "no term" in terms(said, np.arange(100) % 2 == 0, np.arange(100) % 10)["undefined"]


class TestTerms:
    def test_a_planted_word_is_named_with_its_side(self, planted) -> None:
        found = terms(*planted)
        assert found["found"] == 1
        [one] = found["terms"]
        assert (one["term"], one["side"], one["topics"]) == ("cheap", "second", 20)
        assert one["with_second"] > 5 * one["with_first"]
        assert one["odds_ratio"] > 10
        assert one["p_adjusted"] < 1e-10

    def test_chance_names_nothing(self) -> None:
        said, topic = texts(800, 25)
        found = terms(said, generator(0, 7).random(800) < 0.4, topic)
        assert found["found"] == 0
        assert found["terms"] == []
        assert found["tested"] >= len(WORDS)

    def test_the_word_of_a_topic_on_which_one_rater_is_lenient_is_no_bias(self) -> None:
        said, topic = texts(800, 40)
        second = generator(3, 1).random(800) < np.where(topic < 20, 0.9, 0.1)
        assert not [t for t in terms(said, second, topic)["terms"] if t["term"].startswith("topic")]

    def test_statsmodels_finds_the_same(self, planted) -> None:
        tables = pytest.importorskip("statsmodels.stats.contingency_tables")
        multitest = pytest.importorskip("statsmodels.stats.multitest")
        said, second, topic = planted
        names = ["cheap", "w0", "w1", "w2", "w3"]
        x = np.array([[n in t.split() for n in names] for t in said])
        p, odds, informed = association(csr_matrix(x.astype(float)), second, topic)
        for column in range(len(names)):
            strata = []
            for t in np.unique(topic):
                has, yes = x[topic == t, column], second[topic == t]
                strata.append([[sum(has & yes), sum(~has & yes)], [sum(has & ~yes), sum(~has & ~yes)]])
            judge = tables.StratifiedTable(np.array(strata, dtype=float).transpose(1, 2, 0))
            assert p[column] == pytest.approx(judge.test_null_odds(correction=True).pvalue, rel=1e-9)
            assert odds[column] == pytest.approx(judge.oddsratio_pooled, rel=1e-9)
        assert (informed == 20).all()
        whole = terms(said, second, topic)
        from sklearn.feature_extraction.text import CountVectorizer

        from harness.diagnose_texts import tokens

        count = CountVectorizer(min_df=5, max_df=0.95, tokenizer=tokens, token_pattern=None, binary=True)
        every, _, _ = association(count.fit_transform(said).tocsr(), second, topic)
        adjusted = multitest.multipletests(every[np.isfinite(every)], method="fdr_bh")[1]
        assert whole["terms"][0]["p_adjusted"] == pytest.approx(adjusted.min(), rel=1e-9)
        assert whole["found"] == int((adjusted <= 0.05).sum())

    def test_a_term_of_two_topics_is_not_tested(self) -> None:
        topic = np.repeat(np.arange(10), 20)
        second = np.tile([True, False], 100)
        x = csr_matrix(((topic < 2) & second).astype(float)[:, None])
        p, _, informed = association(x, second, topic)
        assert informed[0] == 2
        assert np.isnan(p[0])


class TestDisagreement:
    def test_counts_each_way(self) -> None:
        first = np.array([3, 3, 2, 0, 1, 0, 0, 0])
        second = np.array([3, 1, 0, 2, 1, 0, 0, 1])
        pairs = Pairs(["a", "b"], np.array([0, 0, 0, 0, 1, 1, 1, 1]), first, second, np.arange(8))
        found = disagreement(pairs, 2, 0, RESAMPLES)
        assert (found["disagreements"], found["first_only"], found["second_only"]) == (3, 2, 1)
        assert found["share"] == pytest.approx(3 / 8)
        assert found["second_share"] == pytest.approx(1 / 3)
        assert found["ci"]["share"] == (0.0, 0.75)

    def test_raters_that_agree_throughout(self) -> None:
        grades = np.array([0, 3])
        found = disagreement(Pairs(["a", "b"], np.arange(2), grades, grades, np.arange(2)), 2, 0, RESAMPLES)
        assert found["disagreements"] == 0
        assert found["second_share"] is None
        assert found["ci"]["second_share"] is None
