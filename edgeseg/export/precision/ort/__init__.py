"""The protobuf form of `AlignChannels`, until that pass is written with the toolkit of the others."""
