"""The C++ headers and programs of ``cpp/``, held to the Python they are twins of."""
