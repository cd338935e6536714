"""Deep-learning course architectures in Keras: trained by one command, exported, proven."""

__version__ = "0.1.0"


def create_model(name: str, **kwargs):
    """Build a model of the catalogue by name; see `kerasdl.catalog.build`."""
    from kerasdl import catalog

    return catalog.build(name, **kwargs)


def list_models(task: str | None = None, text: str | None = None) -> list[str]:
    """Names of the catalogue, filtered by task and by a text in name or paper."""
    from kerasdl import catalog

    return catalog.list_models(task, text)


def load(path):
    """The Keras model of a `.keras` file, a run folder or a SavedModel folder of this project."""
    from kerasdl.store import load as loading

    return loading.load(path)


def from_pretrained(where, **kwargs):
    """The model that published weights are for, with them; see `kerasdl.store.published`."""
    from kerasdl.store import published

    return published.from_pretrained(where, **kwargs)


def load_weights(model, where):
    """Give a model published weights; see `kerasdl.store.published.load_weights`."""
    from kerasdl.store import published

    return published.load_weights(model, where)


def save_weights(model, path, family=None, names=()):
    """Write a model's weights as another library has them; see `kerasdl.store.pretrained`."""
    from kerasdl.store import pretrained

    return pretrained.save_weights(model, path, family, names)
