"""Content: what a believable cluster holds, from a seed and a number of pods.

`populate` fills a new cluster; what churn adds later is made by the same builders, so that it looks like the rest.
"""

from simulation.content.builder import ContentBuilder, Variety
from simulation.content.events import add_event
from simulation.content.pods import PodBuilder, PodState
from simulation.content.populate import populate

__all__ = ["ContentBuilder", "PodBuilder", "PodState", "Variety", "add_event", "populate"]
