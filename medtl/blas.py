"""Limit of BLAS threads for functions that multiply many small matrices.

Such products lose time on several threads, most of all beside PyTorch's own, and their rounding
would depend on the number of threads.
"""

from __future__ import annotations

from threadpoolctl import threadpool_limits

one_blas_thread = threadpool_limits.wrap(limits=1, user_api="blas")
"""Decorates a function whose NumPy, SciPy and scikit-learn products are small."""
