"""How good an encoder is: on one's own files, on MTEB's tasks, and on long documents."""

from .measures import Encode
from .mteb_model import mteb_encoder
from .mteb_tasks import local_task
from .own import evaluate
from .scores import Score

__all__ = ["Encode", "Score", "evaluate", "local_task", "mteb_encoder"]
