"""Pre- and post-processing of each model: pure functions on arrays that equal the references."""
