"""Which published weights each model of the catalogue takes."""

import keras

from kerasdl import catalog
from kerasdl.store import weightless
from kerasdl.store.published import KERAS, target_of
from kerasdl.weights import families, keras_applications


def taken(name: str) -> dict:
    """What a model takes.

    Args:
        name: Of the catalogue.

    Returns:
        `{family or keras:NAME: arguments}`: those of the builder that it takes them with, besides
        its defaults. The model's weights are not made.
    """
    result = _accepted(name, {})
    for family in families.families():
        if family.name not in result and family.options and _belongs(name, family):
            more = _accepted(name, family.options)
            result |= {family.name: family.options} if family.name in more else {}
    of_keras = (key for key, row in keras_applications.NAMES.items() if row == name)
    return result | {f"{KERAS}{key}": {} for key in of_keras}


def _belongs(name, family) -> bool:
    return catalog.row(name).module == family.module


def _accepted(name, arguments) -> dict:
    try:
        with weightless.no_weights():
            model = catalog.build(name, **arguments)
            return {family.name: arguments for family in families.of_model(target_of(model))}
    finally:
        keras.backend.clear_session()
