"""The models that answer a job: every row of it has to come from the same ones."""

from collections.abc import Mapping, Sequence
from typing import Any

from visiongate.client import Client
from visiongate.command_error import CommandError
from visiongate.errors import (
    CallCancelledError,
    DeadlineExceededError,
    OverloadedError,
    UnavailableError,
    VisiongateError,
)
from visiongate.operations.models import Model

Models = Mapping[str, Mapping[str, str]]
"""By the task or the family of `ListModels`: the `variant` and the `fingerprint` of its model."""

_NO_ANSWER = CallCancelledError, DeadlineExceededError, OverloadedError, UnavailableError
_QUICK_S = 10.0


def models_of(clients: Sequence[Client], wanted: Mapping[str, str]) -> Models:
    """Return the models of some tasks. All servers must have the same.

    `wanted`: the variant by task; "" is the default. Raises CommandError for a variant that a server does not
    have, and for servers that differ.
    """
    first, *others = [(client.address, _chosen(client, client.list_models(), wanted)) for client in clients]
    for address, models in others:
        for task, model in models.items():
            if model != first[1][task]:
                raise CommandError(
                    f"the servers have different models for {task}, {_spelled(first[1][task])} at "
                    f"{first[0]} and {_spelled(model)} at {address}: give servers whose models are the same"
                )
    return first[1]


def changed_model(clients: Sequence[Client], wanted: Mapping[str, str], models: Models) -> str | None:
    """Return a sentence about a model that is another one by now.

    It is empty if none is, and None if no server answers.
    """
    answers, failure = 0, None
    for client in clients:
        try:
            offered = client.with_options(timeout=_QUICK_S, wait=False).list_models()
        except VisiongateError as error:
            failure = error
            continue
        answers += 1
        for task, model in _chosen(client, offered, wanted).items():
            if model != models[task]:
                return (
                    f"the model for {task} of {client.address} has changed under the job, from "
                    f"{_spelled(models[task])} to {_spelled(model)}: give another --out, or --overwrite to "
                    "do all inputs anew"
                )
    if not answers and failure is not None and not isinstance(failure, _NO_ANSWER):
        raise failure
    return "" if answers else None


def _chosen(client: Client, offered: Sequence[Model], wanted: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    found = {}
    for name, variant in wanted.items():
        # A task such as gaze has models of two families: they are told apart by these.
        of_name = [each for each in offered if each.family == name] or [
            each for each in offered if each.task == name
        ]
        model = next(
            (each for each in of_name if (each.variant == variant if variant else each.is_default)), None
        )
        if model is None:
            what = f"model {variant}" if variant else "model"
            raise CommandError(f"{client.address} has no {what} for {name}: see `visiongate models`")
        found[name] = {"variant": model.variant, "fingerprint": model.fingerprint}
    return found


def _spelled(model: Mapping[str, str]) -> str:
    fingerprint = f" ({model['fingerprint'][:12]})" if model["fingerprint"] else ""
    return f"{model['variant']}{fingerprint}"
