"""The test models are tiny: a second thread per operation costs more than it gives."""

import importlib.util

import torch

torch.set_num_threads(1)
# uvloop keeps the class of sockets that it finds when it is imported. During a test that is
# pytest-socket's, which refuses, so that a server of a later test would never read.
if importlib.util.find_spec("uvloop"):
    importlib.import_module("uvloop")
