"""The HTTP routes that the package inference-sdk calls, answered by the models of this server."""
