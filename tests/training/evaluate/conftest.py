"""The metrics' random weights serve these tests too."""

from tests.training.metrics.conftest import at_weights, weights_folder  # noqa: F401
