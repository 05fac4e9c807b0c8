"""Text embeddings from decoder LLMs: LLM2Vec, E5-Mistral, LLaRA, GritLM and their siblings."""

from .encoder import Encoder
from .families import get_recipe, list_recipes
from .recipe import Recipe, Template

__version__ = "0.1.0"
__all__ = ["Encoder", "Recipe", "Template", "__version__", "get_recipe", "list_recipes"]
