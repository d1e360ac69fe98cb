"""mmsegmentation's config files: read as data, and turned into a registered network with its conventions.

limits.py       how much a config may hold
literals.py     what a Python config says, without running it
trusted.py      running one, where the user said so
merging.py      bases, and what is said over them
files.py        Python, JSON and YAML files
options.py      published options with their defaults, in one form that can be compared
networks.py     the options that each registered network has
recognise.py    which network a config describes, or what is in the way
pipeline.py     how the config's test pictures become the network's input
classes.py      names and colours of the classes
source.py       the whole: `read_config`, `resolve_config`
"""
