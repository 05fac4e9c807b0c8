"""The test models are tiny: a second thread per operation costs more than it gives."""

import torch

torch.set_num_threads(1)
