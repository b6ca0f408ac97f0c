"""Pre- and post-processing of each model: pure functions on arrays, equal to the references."""
