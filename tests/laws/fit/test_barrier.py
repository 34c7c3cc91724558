"""Newton steps within bounds: starts that no step can leave do not stop the others."""

import numpy as np

from skillscale.laws.fit.barrier import minimise_inside


def test_a_start_with_second_derivatives_beyond_all_numbers_stays_and_the_others_move():
    def f(X, rows):
        steep = rows == 1
        value = np.where(steep, 1e-10, 1.0 + 0.5 * ((X - 0.3) ** 2).sum(1))  # its second derivatives over it overflow
        second = np.tile(np.eye(2), (len(X), 1, 1)) * np.where(steep, 1e305, 1.0)[:, None, None]
        return value, X - 0.3, second

    start = np.full((3, 2), 0.7)
    with np.errstate(over="ignore"):
        X, _ = minimise_inside(f, start, lower=np.zeros(2), upper=np.ones(2), fixed_sum=np.zeros(2, dtype=bool))
    np.testing.assert_allclose(X[[0, 2]], 0.3, atol=1e-4)
    np.testing.assert_array_equal(X[1], start[1])
