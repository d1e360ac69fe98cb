"""Readers of checkpoint files that run nothing of the file and check every size before they take memory.

A reader gives a tree of plain Python values in which a tensor is a note of where its bytes lie (`parts`); tensors are
made when it is known which are wanted. `read_tree` picks the reader by what the file holds.
"""

from edgeseg.models.readers.arrays import stands_for
from edgeseg.models.readers.files import Tree, read_tree
from edgeseg.models.readers.parts import Inert, Unsupported, Value
from edgeseg.models.readers.refusals import UnreadableError, damaged

__all__ = ["Inert", "Tree", "UnreadableError", "Unsupported", "Value", "damaged", "read_tree", "stands_for"]
