"""Import every module of `model` while heavy packages are blocked, and print what was imported."""

import importlib
import pkgutil
import sys


class Blocked:
    names = {"tensorflow", "apache_beam", "librosa", "yt_dlp", "tokenizers", "optax", "orbax", "google.cloud"}

    def find_spec(self, name, path=None, target=None):
        if name in self.names:
            raise ModuleNotFoundError(f"{name} is blocked")


sys.meta_path.insert(0, Blocked())
import model

names = [module.name for module in pkgutil.walk_packages(model.__path__, "model.")]
for name in names:
    importlib.import_module(name)
ours = sorted(name for name in sys.modules if name.split(".")[0] in {"shards", "ingest", "train", "pipelines"})
print(*names, "|", *ours)
