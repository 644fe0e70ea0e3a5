from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pipeline.profiling import permutation
from pipeline.profiling.permutation import Draws

samples = st.lists(st.integers(-5, 5) | st.floats(-5, 5), min_size=3, max_size=40)


def first(*rows: int) -> Draws:
    """One choice: these rows."""
    return Draws(np.array(rows), np.zeros(len(rows), np.int64), 1)


@given(samples, samples)
def test_the_distance_is_that_of_scipy(new: list[float], old: list[float]) -> None:
    codes = permutation.binned(np.array(new + old, np.float64))

    distance = permutation.kolmogorov_smirnov(codes, first(*range(len(new))))

    assert distance == pytest.approx(stats.ks_2samp(new, old, method="asymp").statistic)


def test_with_many_rows_the_distance_is_as_exact_as_the_bins() -> None:
    random = np.random.default_rng(3)
    new, old = random.normal(0.5, 0.02, 700), random.normal(0, 1, 9000)
    codes = permutation.binned(np.concatenate([new, old]))

    (distance,) = permutation.kolmogorov_smirnov(codes, first(*range(700)))

    exact = stats.ks_2samp(new, old, method="asymp").statistic
    assert exact - 1 / permutation.BINS <= distance <= exact


def test_total_variation_is_the_share_that_would_have_to_move() -> None:
    classes = np.array([0, 0, 0, 1, 0, 1, 1, 2])  # the first four: 3/4, 1/4, 0; the others: 1/4, 2/4, 1/4

    assert permutation.total_variation(classes, first(0, 1, 2, 3)) == pytest.approx([0.5])


def test_a_surprise_is_the_root_of_the_likelihood_ratio_of_its_table() -> None:
    classes = np.repeat([0, 1, 0, 1, 2], [3, 17, 40, 50, 10])  # 20 chosen, 100 others
    chosen = first(*range(20))

    found = permutation.surprises(classes, chosen)[0]

    for label, inside, outside in ((0, 3, 40), (1, 17, 50), (2, 0, 10)):
        table = [[inside, 20 - inside], [outside, 100 - outside]]
        expected = stats.chi2_contingency(table, correction=False, lambda_="log-likelihood").statistic
        assert found[label] == pytest.approx(expected**0.5)
    assert permutation.surprises(np.zeros(9, np.int64), first(1, 2)) == [[0.0]]


def test_clusters_are_drawn_whole_and_the_first_draw_is_the_real_one() -> None:
    clusters = np.array([7, 7, 7, 1, 2, 2, 3, 4, 4, 5])
    new = np.array([True] * 4 + [False] * 6)

    (chunk,) = permutation.draws(new, clusters, count=200, seed=1, chunk=500)
    choices = [set(chunk.rows[chunk.owner == number]) for number in range(chunk.count)]

    assert chunk.count == 201
    assert choices[0] == {0, 1, 2, 3}
    members = [set(np.flatnonzero(clusters == cluster)) for cluster in np.unique(clusters)]
    assert all(sum(cluster <= choice for cluster in members) == 2 for choice in choices)
    assert all(set.union(*(cluster for cluster in members if cluster <= choice)) == choice for choice in choices)
    assert len(set(map(frozenset, choices))) == 15  # all pairs of six clusters


def test_a_cluster_on_both_sides_counts_as_two() -> None:
    new = np.array([True, True, False, False, False])

    (chunk,) = permutation.draws(new, np.array([0, 1, 1, 2, 3]), count=50, seed=1, chunk=100)

    assert all(np.sum(chunk.owner == number) == 2 for number in range(chunk.count))


def test_the_smaller_side_is_drawn_in_chunks_that_do_not_matter() -> None:
    new = np.array([True] * 7 + [False] * 3)
    whole = list(permutation.draws(new, np.arange(10), count=9, seed=5, chunk=100))
    parts = list(permutation.draws(new, np.arange(10), count=9, seed=5, chunk=4))

    assert [part.count for part in parts] == [4, 4, 2]
    assert set(whole[0].rows[whole[0].owner == 0]) == {7, 8, 9}
    assert np.concatenate([part.rows for part in parts]).tolist() == whole[0].rows.tolist()


def test_step_down_by_hand() -> None:
    # Ten draws, the first is real. Scaled alike, since each row holds the same values in another order.
    statistics = np.array(
        [
            [9, 0, 1, 2, 3, 4, 5, 6, 7, 8],  # the largest of all: one draw in ten
            [8, 9, 0, 1, 2, 3, 4, 5, 6, 7],  # two of ten are as large, and the first cannot exceed it any more
            [5, 4, 9, 6, 7, 8, 0, 1, 2, 3],
        ],
        np.float64,
    )

    judged = permutation.judge(statistics, alpha=0.3)

    # Largest over all: 9 9 9 6 7 8 5 6 7 8; over the last two: 8 9 9 6 7 8 4 5 6 7; of the last: five reach 5.
    assert judged.p_values.tolist() == pytest.approx([0.3, 0.4, 0.5])
    assert judged.real.tolist() == [9, 8, 5]
    # The second ends it: not significant, it would have had to exceed the fourth largest of its draws.
    assert judged.critical.tolist() == pytest.approx([8, 8, 8])


def test_what_does_not_vary_is_never_significant() -> None:
    statistics = np.stack([np.full(100, 0.1) + 1e-17, np.arange(100.0)[::-1]])

    judged = permutation.judge(statistics, alpha=0.05)

    assert judged.p_values.tolist() == pytest.approx([1.0, 0.01], abs=0.5)
    assert judged.p_values[1] == pytest.approx(0.01)
    assert judged.p_values[0] > 0.4


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.01, 0.05, 0.2]))
def test_significant_is_what_exceeds_the_critical_value(seed: int, alpha: float) -> None:
    random = np.random.default_rng(seed)
    statistics = random.gamma(2, 1, (6, 200)).round(1)  # with ties
    statistics[:, 0] += random.gamma(2, 1, 6)

    judged = permutation.judge(statistics, alpha)

    assert ((judged.p_values <= alpha) == (judged.real > judged.critical + 1e-9)).all()
