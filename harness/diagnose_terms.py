"""Where two raters disagree, which way, and whether the text tells: after arXiv 2507.02139.

A pair is in disagreement where one rater reaches the middle of the scale and the other does not. If the text
alone predicts which of the two said relevant, their difference is not noise but a matter of words. Texts of
one topic share its vocabulary and its errors, so folds are made of whole topics (stratified by side): a
classifier that only knows topics again gets 0.5. The same with folds of single pairs, as in the paper, is
given beside it. Terms are tested within topics, for the same reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from harness.agree_pairs import Pairs
from harness.agree_tables import interval, resampled
from harness.arrays import Bools, Floats, Ints
from harness.diagnose_texts import tokens

__all__ = ["LEVEL", "association", "disagreement", "predictability", "terms"]

LEVEL = 0.05
"""Of the false discoveries among the terms that are named."""
MIN_DF, MAX_DF, FOLDS = 5, 0.95, 5
TOPICS = 3
"""In which a term must be seen going either way before it is tested."""
_FEWEST = 25  # disagreements each way: five a fold
_FEWEST_TOPICS = 5  # with disagreements each way: one a fold
_MOST_TERMS = 20


def disagreement(pairs: Pairs, middle: int, seed: int, resamples: int) -> dict[str, Any]:
    """How often each of two raters alone says relevant.

    Parameters
    ----------
    middle: position of the lowest relevant grade.

    Returns
    -------
    `pairs`, `topics`, `disagreements`, `first_only`, `second_only` (who alone says relevant), `share` (of the
    pairs) and `second_share` (of the disagreements those in which the second said relevant; 0.5 is even),
    with `ci`.
    """
    first, second = pairs.first >= middle, pairs.second >= middle
    columns = [np.ones(len(first)), first & ~second, second & ~first]
    by_topic = np.column_stack([np.bincount(pairs.topic, c, len(pairs.topics)) for c in columns]).astype(
        float
    )
    one, other = int(by_topic[:, 1].sum()), int(by_topic[:, 2].sum())
    found: dict[str, Any] = {
        "pairs": len(first),
        "topics": len(pairs.topics),
        "disagreements": one + other,
        "first_only": one,
        "second_only": other,
        "share": (one + other) / len(first),
        "second_share": other / (one + other) if one + other else None,
        "ci": {"share": None, "second_share": None},
    }
    if len(pairs.topics) > 1:
        drawn = resampled({"n": by_topic}, seed, resamples)["n"]
        with np.errstate(invalid="ignore", divide="ignore"):
            parts = drawn[:, 1] + drawn[:, 2]
            found["ci"]["share"] = interval(parts / drawn[:, 0])
            if one + other:
                found["ci"]["second_share"] = interval(drawn[:, 2] / parts)
    return found


def predictability(
    texts: Sequence[str], second: Bools, topic: Ints, seed: int, resamples: int
) -> dict[str, Any]:
    """How well the text of a pair in disagreement tells who said relevant.

    Parameters
    ----------
    texts: of the pairs in disagreement. second: whether it was the second rater. topic: number of its topic.

    Returns
    -------
    `auc` and `ci`: cross-validated area under the ROC curve of TF-IDF (a term in at least 5 documents and at
    most 95 %) and logistic regression, five folds of whole topics; 0.5 is chance. Compared are texts of one
    fold, since each fold has a model of its own; the interval draws topics anew, the models as they are, so
    that a value a little below 0.5 (what a fold holds, its model lacks) means nothing.
    `auc_pairs` and `ci_pairs`: the same with folds of pairs, so that topics may be known again. Or only
    `undefined`, which says why there is no value.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
    from threadpoolctl import threadpool_limits

    if why := _too_few(second, topic):
        return {"undefined": why}
    with threadpool_limits(1):
        try:
            x = TfidfVectorizer(
                min_df=MIN_DF, max_df=MAX_DF, tokenizer=tokens, token_pattern=None
            ).fit_transform(texts)
        except ValueError:
            return {"undefined": f"no term is in {MIN_DF} documents and at most {MAX_DF:.0%} of them"}
        whole = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed).split(x, second, topic)
        single = StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(x, second)
        auc, ci = _cross_validated(x, second, topic, list(whole), seed, resamples)
        auc_pairs, ci_pairs = _cross_validated(x, second, topic, list(single), seed, resamples)
    if auc is None:
        return {"undefined": "in every fold of whole topics one side has all the disagreements"}
    return {"auc": auc, "ci": ci, "auc_pairs": auc_pairs, "ci_pairs": ci_pairs, "terms": x.shape[1]}


def _too_few(second: Bools, topic: Ints) -> str:
    least = min(int(second.sum()), int((~second).sum()))
    if least < _FEWEST:
        return f"{least} disagreements one way are too few to learn from; {_FEWEST} each way are needed"
    topics = min(len(np.unique(topic[side])) for side in (second, ~second))
    if topics < _FEWEST_TOPICS:
        return (
            f"the disagreements one way are in {topics} topics, too few to leave some out; {_FEWEST_TOPICS}"
            " are needed each way"
        )
    return ""


def _cross_validated(
    x: Any, second: Bools, topic: Ints, folds: Sequence[tuple[Ints, Ints]], seed: int, resamples: int
) -> tuple[float | None, tuple[float, float] | None]:
    """AUC over the comparisons within folds, and its interval over topics."""
    from sklearn.linear_model import LogisticRegression

    known, place = np.unique(topic, return_inverse=True)
    right = np.zeros((len(known), len(known)))  # by topic of the second's and of the first's text
    compared = np.zeros_like(right)
    for train, test in folds:
        if len(np.unique(second[train])) < 2:
            continue
        model = LogisticRegression(max_iter=1000, random_state=seed).fit(x[train], second[train])
        score = model.decision_function(x[test])
        yes, no = np.flatnonzero(second[test]), np.flatnonzero(~second[test])
        above, below, pairs = _by_topic(score[yes], place[test][yes], score[no], place[test][no], len(known))
        right += above + (pairs - above - below) / 2
        compared += pairs
    if not compared.sum():
        return None, None
    times = resampled({"times": np.eye(len(known))}, seed, resamples)["times"]
    with np.errstate(invalid="ignore", divide="ignore"):
        drawn = ((times @ right) * times).sum(axis=1) / ((times @ compared) * times).sum(axis=1)
    return float(right.sum() / compared.sum()), interval(drawn)


def _by_topic(
    yes: Floats, yes_topic: Ints, no: Floats, no_topic: Ints, topics: int
) -> tuple[Floats, Floats, Floats]:
    """(topics, topics) each: pairs of a `yes` and a `no` score of which the first is higher, or lower, and
    all pairs, by the topics of the two."""
    found = np.zeros((3, topics, topics))
    if not len(yes) or not len(no):
        return found[0], found[1], found[2]
    orders = [np.argsort(t, kind="stable") for t in (yes_topic, no_topic)]
    (rows, first), (columns, second) = (
        np.unique(t[order], return_index=True) for t, order in zip((yes_topic, no_topic), orders, strict=True)
    )
    mine, theirs = yes[orders[0]][:, None], no[orders[1]][None, :]
    for number, compared in enumerate((mine > theirs, mine < theirs, np.ones((len(yes), len(no)), bool))):
        sums = np.add.reduceat(np.add.reduceat(compared, first, axis=0, dtype=np.int64), second, axis=1)
        found[number][np.ix_(rows, columns)] = sums
    return found[0], found[1], found[2]


def terms(texts: Sequence[str], second: Bools, topic: Ints) -> dict[str, Any]:
    """The terms whose presence goes with one side, within topics.

    Returns
    -------
    `tested`: how many terms could be tested; `level`: of the false discovery rate; `terms`: those that pass,
    the surest first, at most 20 (`found` counts all): `term`, `side` (`first` or `second` said relevant),
    `with_first`, `with_second` (texts that have it), `topics` (that it was tested in), `odds_ratio`
    (Mantel-Haenszel; above 1 for the second; None where it is infinite), `p`, `p_adjusted` (Benjamini and
    Hochberg 1995). Or only `undefined`.
    """
    from scipy.stats import false_discovery_control
    from sklearn.feature_extraction.text import CountVectorizer

    if why := _too_few(second, topic):
        return {"undefined": why}
    count = CountVectorizer(min_df=MIN_DF, max_df=MAX_DF, tokenizer=tokens, token_pattern=None, binary=True)
    try:
        x = count.fit_transform(texts).tocsr()
    except ValueError:
        return {"undefined": f"no term is in {MIN_DF} documents and at most {MAX_DF:.0%} of them"}
    names = count.get_feature_names_out()
    p, odds, informed = association(x, second, topic)
    testable = np.flatnonzero(np.isfinite(p))
    if not len(testable):
        return {"undefined": f"no term is in {TOPICS} topics that have disagreements both ways"}
    adjusted = false_discovery_control(p[testable], method="bh")
    having = [np.asarray(x[side].sum(axis=0)).ravel() for side in (~second, second)]
    passed = np.flatnonzero(adjusted <= LEVEL)
    order = passed[np.lexsort((names[testable[passed]], p[testable[passed]]))]
    listed = [
        {
            "term": str(names[column]),
            "side": "second" if odds[column] > 1 else "first",
            "with_first": int(having[0][column]),
            "with_second": int(having[1][column]),
            "topics": int(informed[column]),
            "odds_ratio": float(odds[column]) if np.isfinite(odds[column]) else None,
            "p": float(p[column]),
            "p_adjusted": float(q),
        }
        for column, q in ((testable[i], adjusted[i]) for i in order[:_MOST_TERMS])
    ]
    return {"tested": len(testable), "level": LEVEL, "found": len(passed), "terms": listed}


def association(x: Any, second: Bools, topic: Ints) -> tuple[Floats, Floats, Ints]:
    """Whether each term's presence goes with a side, given the topic: the Cochran-Mantel-Haenszel test with
    Yates' correction (Mantel and Haenszel, JNCI 1959), and the common odds ratio.

    Parameters
    ----------
    x: (texts, terms) sparse, 0 or 1. second: which side. topic: the stratum.

    Returns
    -------
    p (NaN where fewer than `TOPICS` topics have both sides and texts with and without the term: a term of one
    topic says something of that topic, not of the raters), odds ratio, and the number of such topics, one a
    term.
    """
    from scipy.sparse import csr_matrix
    from scipy.stats import chi2

    _, place = np.unique(topic, return_inverse=True)
    rows = np.arange(len(place))
    member = csr_matrix((np.ones(len(place)), (place, rows)), shape=(int(place.max()) + 1, len(place)))
    n = np.asarray(member.sum(axis=1)).reshape(-1, 1)
    yes = np.asarray(member @ second.astype(np.float64)).reshape(-1, 1)
    use = ((yes > 0) & (yes < n)).ravel()  # a topic with one side only says nothing
    if not use.any():
        nothing = np.full(x.shape[1], np.nan)
        return nothing, nothing, np.zeros(x.shape[1], np.int64)
    having = np.asarray((member @ x)[use].todense())  # (topics, terms)
    both = np.asarray((member @ csr_matrix(x.multiply(second[:, None])))[use].todense())
    n, yes = n[use], yes[use]
    excess = (both - yes * having / n).sum(axis=0)
    parts = yes * (n - yes) * having * (n - having) / (n**2 * np.maximum(n - 1, 1))
    variance, informed = parts.sum(axis=0), (parts > 0).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        statistic = np.maximum(np.abs(excess) - 0.5, 0) ** 2 / variance
        p = np.where(informed >= TOPICS, chi2.sf(statistic, 1), np.nan)
        for_it = (both * (n - yes - having + both) / n).sum(axis=0)
        against = ((yes - both) * (having - both) / n).sum(axis=0)
        odds = for_it / against
    return p, odds, informed
