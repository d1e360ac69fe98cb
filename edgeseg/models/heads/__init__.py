"""Decode heads and necks of mmsegmentation 1.2.2 (Apache-2.0), one family per file, for any backbone.

Each equals its published implementation number for number and keeps its key names. Constructors take the published
options by their published names. `edgeseg.models.heads.registry` finds a head by its name.
"""
