"""Iterative Patch Selection: many-megapixel images classified in memory that does not grow.

    core       config, patches, selection, losses, model/, metrics, training, runtime
    datasets   megapixel_mnist/, images/ (your own), traffic_signs/, slides/; attention maps
    runs       from a configuration to its record: here, in processes, on a cluster; train_images
    study      tables, statistics, figures and findings of the notebooks
    commands   what `python -m ipslib` runs

Nothing imports from a layer below it in this list. The names in `__all__` are imported when they
are first asked for.
"""

from importlib import import_module

__version__ = "0.1.0"

_HOMES = {
    "config": ("ModelConfig", "RunConfig", "TrainingConfig"),
    "datasets.images.attention": ("Attention", "attention_of", "to_geojson"),
    "datasets.images.attention_page": ("attention_page",),
    "datasets.images.config": ("OwnImagesConfig",),
    "datasets.images.sources": ("SourceBatch", "open_source"),
    "datasets.megapixel_mnist.config": ("MegapixelMNISTConfig",),
    "datasets.megapixel_mnist.dataset": ("MegapixelMNIST",),
    "datasets.registry": ("run_config",),
    "errors": ("IpslibError",),
    "losses": ("Losses", "combined_losses", "diversity_loss", "semantic_loss", "task_loss"),
    "model.ips": ("IPSNet", "IPSOutput"),
    "model.original": ("load_original",),
    "patches": ("MixedBatch", "PatchBatch", "PatchGrid", "TensorBatch", "cut_image"),
    "runs.train_images": ("train_images",),
    "runs.trained_images": ("TrainedImages", "load"),
    "selection": ("Selection", "attention_scores", "mask_logits", "mask_scores", "select_patches"),
    "training": ("attend", "evaluate", "train"),
}
_HOME_OF = {name: f"ipslib.{home}" for home, names in _HOMES.items() for name in names}
__all__ = ["__version__", *sorted(_HOME_OF)]


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'ipslib' has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
