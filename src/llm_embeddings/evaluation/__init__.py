"""Evaluation of encoders: on files of one's own, on MTEB's tasks, and on long documents."""

from .measures import Encode
from .mteb.model import mteb_encoder
from .mteb.tasks import local_task
from .own import evaluate
from .scores import Score

__all__ = ["Encode", "Score", "evaluate", "local_task", "mteb_encoder"]
